"""Draws the held-out codes, with other libraries and dictionaries than the training codes.

QR codes come from qrcode and zxing-cpp, bars from zxing-cpp and reportlab, markers from
dictionaries (and, in 4x4, numbers) that `symbols.py` never draws.
"""

import string

import cv2
import numpy as np
import qrcode
import zxingcpp
from reportlab.graphics.barcode import code39, code93, code128, common, eanbc
from symbols import Symbol, framed_bars, framed_modules, marker_bits, random_text

Rng = np.random.Generator

_DICTIONARIES = ("4X4_1000", "APRILTAG_25H9", "APRILTAG_36H10", "ARUCO_MIP_36H12")
_WIDE_AND_NARROW = {"b": "1", "B": "111", "s": "0", "S": "000", "i": "0"}
_BY_WIDTH = {
    letter: bit * width
    for bit, letters in (("1", "ABCDEFGH"), ("0", "abcdefgh"))
    for width, letter in enumerate(letters, 1)
}
_FIRST_UNSEEN_4X4 = 250  # the smaller 4x4 dictionaries are the beginning of the largest


def draw(name: str, rng: Rng) -> Symbol:
    """Draw a random symbol of class `name` with the held-out libraries."""
    if name == "qr_code":
        return framed_modules(name, _qr_modules(rng), rng, quiet=rng.uniform(0, 6))
    if name == "barcode":
        return framed_bars(*_bar_modules(rng), rng)
    return framed_modules(name, _marker_modules(rng), rng, quiet=rng.choice([0.5, 1, 2, 3]))


def _qr_modules(rng: Rng) -> np.ndarray:
    version = int(rng.integers(1, 11) if rng.random() < 0.7 else rng.integers(11, 26))
    length = 6 if version == 1 else int(4 + version * version * 0.65)
    text = random_text(rng, length)
    level = int(rng.integers(4))
    if rng.random() < 0.5:
        code = qrcode.QRCode(version=version, error_correction=level, border=0)
        code.add_data(text)
        code.make(fit=True)
        return np.array(code.get_matrix(), bool)
    options = {"ec_level": "LMQH"[level], "version": version if length < 100 else 0}
    drawn = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode, **options)
    return np.array(drawn.to_image(scale=1, add_quiet_zones=False)) < 128


def _bar_modules(rng: Rng) -> tuple[str, str]:
    if rng.random() < 0.5:
        return _zxing_bars(rng)
    return _reportlab_bars(rng)


def _zxing_bars(rng: Rng) -> tuple[str, str]:
    kind = str(rng.choice(["Code128", "EAN13", "Code39", "ITF", "UPCA", "DataBar"]))
    digits = {"EAN13": 12, "ITF": 2 * int(rng.integers(3, 9)), "UPCA": 11, "DataBar": 13}
    if kind in digits:
        text = random_text(rng, digits[kind], string.digits)
    else:
        text = random_text(rng, int(rng.integers(4, 14)), string.ascii_uppercase + string.digits)
    drawn = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, kind))
    row = np.array(drawn.to_image(scale=1, add_quiet_zones=False))[0] < 128
    return "".join("01"[bit] for bit in row.astype(int)), text


def _reportlab_bars(rng: Rng) -> tuple[str, str]:
    """Encode with reportlab; two of its codes spell bars by width, two by kind and width."""
    kind = int(rng.integers(5))
    if kind == 0:
        text = random_text(rng, 12, string.digits)
        return _ean_modules(eanbc.Ean13BarcodeWidget(text)), text
    text = random_text(rng, int(rng.integers(4, 13)), string.ascii_uppercase + string.digits)
    if kind == 1:
        code = code128.Code128(text)
    elif kind == 2:
        code = code39.Standard39(text, checksum=0)
    elif kind == 3:
        code = code93.Standard93(text)
    else:
        text = random_text(rng, 2 * int(rng.integers(3, 9)), string.digits)
        code = common.I2of5(text, checksum=0)
    code.validate()
    code.encode()
    code.decompose()
    # `B` and `S` are a wide bar and space, `i` a gap; in the others `C` is three bars' width.
    spelling = _WIDE_AND_NARROW if kind in (2, 4) else _BY_WIDTH
    return "".join(spelling[letter] for letter in code.decomposed), text


def _ean_modules(widget: eanbc.Ean13BarcodeWidget) -> str:
    """Read the modules of an EAN off the rectangles that the widget draws."""
    bars = [shape for shape in widget.draw().contents if getattr(shape, "fillColor", None)]
    bars = [bar for bar in bars if hasattr(bar, "width")]
    left, step = min(bar.x for bar in bars), float(widget.barWidth)
    modules = ["0"] * 95
    for bar in bars:
        start = round((bar.x - left) / step)
        for index in range(start, start + round(bar.width / step)):
            modules[index] = "1"
    return "".join(modules)


def _marker_modules(rng: Rng) -> np.ndarray:
    name = str(rng.choice(_DICTIONARIES))
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, f"DICT_{name}"))
    if name == "4X4_1000":
        dictionary.bytesList = dictionary.bytesList[_FIRST_UNSEEN_4X4:]
    return marker_bits(dictionary, rng)
