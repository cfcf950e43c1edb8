"""Draws the codes that the demo model is trained on.

QR codes come from segno, bar patterns from python-barcode, markers from OpenCV's dictionaries
and from random bits. The held-out set is drawn by other libraries: see `heldout_symbols.py`.
"""

import string
from dataclasses import dataclass

import barcode
import cv2
import numpy as np
import segno
from lettering import text_mask

Rng = np.random.Generator
NAMES = ("qr_code", "barcode", "aruco_marker")

_DICTIONARIES = (
    *("4X4_50", "4X4_250", "5X5_100", "5X5_250", "6X6_250", "7X7_250"),
    *("ARUCO_ORIGINAL", "APRILTAG_16H5", "APRILTAG_36H11"),
)
_BAR_KINDS = ("code128", "ean13", "code39", "itf", "ean8", "upca", "codabar")


@dataclass(frozen=True)
class Symbol:
    """One flat symbol: `ink` is float32 (height, width), 1 where printed and 0 where paper.

    `box` is x1, y1, x2, y2 in `ink` pixels: the modules or bars, without quiet zone or digits.
    `modules` counts the modules along the box's width and so says how small it can be seen.
    """

    name: str
    ink: np.ndarray
    box: tuple[int, int, int, int]
    modules: int


def draw(name: str, rng: Rng) -> Symbol:
    """Draw a random symbol of class `name` with the training libraries."""
    if name == "qr_code":
        return framed_modules(name, _qr_modules(rng), rng, quiet=rng.uniform(0, 6))
    if name == "barcode":
        modules, digits = _bar_modules(rng)
        return framed_bars(modules, digits, rng)
    return framed_modules(name, _marker_modules(rng), rng, quiet=rng.choice([0.0, 0.5, 1, 1, 2, 3]))


def random_text(rng: Rng, length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Return `length` random characters of `alphabet`."""
    return "".join(rng.choice(list(alphabet), length))


def framed_modules(name: str, modules: np.ndarray, rng: Rng, quiet: float) -> Symbol:
    """Scale square `modules` (bool) up and add `quiet` modules of empty paper on each side."""
    count = len(modules)
    px = int(np.clip(480 // count, 4, 40))
    ink = np.kron(modules, np.ones((px, px))).astype(np.float32)
    if name == "qr_code":
        ink = _styled(ink, modules, px, rng)
    pad = round(quiet * px)
    side = count * px
    return Symbol(name, np.pad(ink, pad), (pad, pad, pad + side, pad + side), count)


def framed_bars(modules: str, digits: str, rng: Rng) -> Symbol:
    """Draw bars from a string of 0 and 1, with `digits` below them three times in five."""
    px = int(np.clip(560 // len(modules), 2, 5))
    width = len(modules) * px
    height = int(width / np.exp(rng.uniform(np.log(1.1), np.log(7.0))))
    row = np.repeat(np.frombuffer(modules.encode(), np.uint8) == ord("1"), px)
    # Encoders may put empty modules at the ends; the box is what is printed.
    left, right = np.flatnonzero(row)[[0, -1]]
    row = row[left : right + 1]
    width = len(row)
    bars = np.broadcast_to(row, (height, width)).astype(np.float32)
    box_height = height
    below = np.zeros((0, width), np.float32)
    if rng.random() < 0.6 and digits:
        size = int(np.clip(width * rng.uniform(0.07, 0.14), 10, 0.5 * height + 10))
        text = text_mask(digits, size, rng)
        scale = min(1.0, 0.95 * width / text.shape[1])
        text = cv2.resize(text, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        gap = int(rng.uniform(1, 5) * px)
        below = np.zeros((text.shape[0] + gap, width), np.float32)
        x = (width - text.shape[1]) // 2
        below[gap:, x : x + text.shape[1]] = text
        if len(modules) in (67, 95) and rng.random() < 0.8:
            # The guard bars of an EAN reach down between the digits and belong to the symbol.
            guard = min(len(below), int(5 * px))
            for start, stop in ((0, 3), (len(modules) // 2 - 1, len(modules) // 2 + 2), (-3, None)):
                columns = slice(start * px, None if stop is None else stop * px)
                below[:guard, columns] = np.maximum(below[:guard, columns], row[columns])
            box_height += guard
    pad_x = int(rng.uniform(0, 12) * px)
    pad_y = int(rng.uniform(0, 0.3) * height)
    ink = np.pad(np.vstack([bars, below]), ((pad_y, pad_y), (pad_x, pad_x)))
    box = (pad_x, pad_y, pad_x + width, pad_y + box_height)
    return Symbol("barcode", ink, box, round(width / px))


def _styled(ink: np.ndarray, modules: np.ndarray, px: int, rng: Rng) -> np.ndarray:
    """Give one QR code in four what designers give them: round dots, soft corners, a logo."""
    style = rng.random()
    if style < 0.1:
        dot = np.zeros((px, px), np.float32)
        cv2.circle(dot, (px // 2, px // 2), max(1, int(px * 0.48)), 1.0, -1)
        dots = np.kron(modules, dot).astype(np.float32)
        eye = 7 * px
        for corner in (np.s_[:eye, :eye], np.s_[:eye, -eye:], np.s_[-eye:, :eye]):
            dots[corner] = ink[corner]
        ink = dots
    elif style < 0.18:
        # Blur and threshold: neighbouring modules melt together, corners become round.
        soft = cv2.GaussianBlur(ink, (0, 0), px * 0.35)
        ink = (soft > 0.5).astype(np.float32)
    if rng.random() < 0.12:
        middle, radius = len(ink) // 2, int(len(ink) * rng.uniform(0.08, 0.15))
        cv2.circle(ink, (middle, middle), radius, 0.0, -1)
        cv2.circle(ink, (middle, middle), int(radius * rng.uniform(0.4, 0.85)), 0.8, -1)
    return ink


def _qr_modules(rng: Rng) -> np.ndarray:
    version = int(min(25, 1 + rng.exponential(5)))
    error = str(rng.choice(list("lmqh")))
    # A version-1 code at level H holds ten capitals; a short text fits every version, and the
    # padding that fills the rest would look too regular, so larger versions get longer texts.
    length = int(rng.integers(3, 8)) if version == 1 else int(4 + version * version * 0.7)
    text = random_text(rng, length, string.ascii_uppercase + string.digits)
    code = segno.make_qr(text, error=error, version=None if version > 1 else 1, boost_error=False)
    return np.array([list(row) for row in code.matrix], bool)


def _bar_modules(rng: Rng) -> tuple[str, str]:
    kind = str(rng.choice(_BAR_KINDS, p=[0.3, 0.27, 0.13, 0.12, 0.06, 0.08, 0.04]))
    lengths = {"ean13": 12, "ean8": 7, "upca": 11, "itf": 2 * int(rng.integers(3, 9))}
    if kind in ("code128", "code39"):
        alphabet = string.ascii_uppercase + string.digits
        text = random_text(rng, int(rng.integers(4, 17 if kind == "code128" else 12)), alphabet)
    elif kind == "codabar":
        text = f"A{random_text(rng, int(rng.integers(5, 12)), string.digits)}B"
    else:
        text = random_text(rng, lengths[kind], string.digits)
    options = {"add_checksum": False} if kind == "code39" else {}
    code = barcode.get_barcode_class(kind)(text, **options)
    return code.build()[0].replace("G", "1"), code.get_fullcode()


def _marker_modules(rng: Rng) -> np.ndarray:
    if rng.random() < 0.3:
        # Random bits stand for the dictionaries that OpenCV does not know.
        bits = rng.random((side := int(rng.integers(3, 9)), side)) < rng.uniform(0.3, 0.7)
        return np.pad(bits, int(rng.choice([1, 1, 1, 2])), constant_values=True)
    name = f"DICT_{rng.choice(_DICTIONARIES)}"
    dictionary = cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, name))
    return marker_bits(dictionary, rng)


def marker_bits(dictionary: "cv2.aruco.Dictionary", rng: Rng) -> np.ndarray:
    """Return one marker of `dictionary` as square modules, True where black."""
    border = 1 if rng.random() < 0.9 else 2
    side = dictionary.markerSize + 2 * border
    number = int(rng.integers(len(dictionary.bytesList)))
    return cv2.aruco.generateImageMarker(dictionary, number, side, borderBits=border) < 128
