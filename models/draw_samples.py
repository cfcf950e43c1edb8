"""Draws the sample pictures: staged scenes with readable codes, and a list of where the codes are.

    python models/draw_samples.py --out models/samples --table coffee.png

`--table` is a photograph for the background of the QR sample; without it a wooden table is drawn.
The shipped sample has `coffee.png` from scikit-image there (CC0, Pikolo Espresso Bar).
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from cards import Box, Card, bars, cardboard, enlarge, finish, lay, pack, qr, wood
from PIL import Image, ImageDraw
from symbols import marker_bits


def main() -> None:
    """Read the command line, draw every sample and write `expected.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="photograph behind the QR sample")
    arguments = parser.parse_args()
    rng = np.random.default_rng(20)
    table = cv2.imread(str(arguments.table)) if arguments.table else None
    expected = {}
    for name, stage in (
        ("qr_code", lambda: stage_cafe(rng, table)),
        ("barcode", lambda: stage_parcel(rng)),
        ("aruco_marker", lambda: stage_markers(rng)),
        ("mixed", lambda: stage_desk(rng)),
        ("screen", lambda: stage_screen(rng)),
    ):
        picture, boxes = finish(*stage(), rng)
        (arguments.out / f"{name}.jpg").write_bytes(pack(picture))
        expected[f"{name}.jpg"] = boxes
    (arguments.out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def stage_cafe(rng: np.random.Generator, table: np.ndarray | None) -> tuple[np.ndarray, list[Box]]:
    """Stage a card with a QR code on a table."""
    canvas = wood(900, 1200, rng) if table is None else enlarge(table, 900, 1200)
    card = Card(Image.new("RGB", (620, 860), "#fbf7ee"))
    ImageDraw.Draw(card.image).rectangle((24, 24, 595, 835), outline="#7a4a28", width=5)
    card.write(76, 78, "KAFFEE KONTOR", 46, bold=True, ink="#5b3216")
    card.write(186, 146, "menu · order · pay", 28, ink="#7a4a28")
    card.stamp("qr_code", qr("https://example.org/menu?table=12"), 118, 226, 13)
    card.write(170, 668, "SCAN  ME", 60, bold=True, ink="#5b3216")
    card.write(232, 756, "Table 12", 36, ink="#7a4a28")
    boxes = lay(canvas, card, [[735, 150], [1105, 205], [1045, 745], [660, 655]])
    return canvas, boxes


def stage_parcel(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """Stage a parcel's label on cardboard, with a strip of tape."""
    canvas = cardboard(900, 1200, rng)
    label = Card(Image.new("RGB", (1000, 700), "#fdfdfb"))
    draw = ImageDraw.Draw(label.image)
    draw.rectangle((8, 8, 991, 691), outline="#111", width=5)
    draw.line((8, 250, 991, 250), fill="#111", width=5)
    draw.line((640, 8, 640, 250), fill="#111", width=5)
    label.write(36, 30, "FROM", 24)
    label.write(36, 64, "Northwind Supplies", 36, bold=True)
    label.write(36, 112, "18 Harbour Road", 32)
    label.write(36, 154, "8001 Lakeside", 32)
    label.write(690, 50, "PRIORITY", 46, bold=True)
    label.write(722, 118, "2.4 kg  ·  1/1", 30)
    label.write(36, 268, "TO", 24)
    label.write(36, 300, "Ada Example, 7 Mill Lane, 4002 Riverton", 36, bold=True)
    label.stamp("barcode", bars("code128", "YQ4711908234"), 104, 380, 6, 210)
    label.write(330, 612, "YQ 4711 9082 34", 42, bold=True)
    boxes = lay(canvas, label, [[190, 170], [1035, 120], [1065, 690], [235, 770]])
    small = Card(Image.new("RGB", (460, 290), "#fffef6"))
    small.stamp("barcode", bars("ean13", "400638133393"), 42, 40, 4, 180)
    small.write(96, 232, "4 006381 333931", 34)
    boxes += lay(canvas, small, [[880, 735], [1130, 700], [1150, 860], [900, 890]])
    return canvas, boxes


def stage_markers(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """Stage three paper markers, two of them tilted, on a dark wooden table."""
    canvas = wood(900, 1200, rng, tone=(52, 70, 96))
    boxes = []
    for kind, corners in (
        ("DICT_4X4_50", [[110, 130], [500, 95], [540, 470], [125, 510]]),
        ("DICT_APRILTAG_36H11", [[700, 120], [1050, 190], [985, 520], [640, 440]]),
        ("DICT_6X6_250", [[420, 590], [720, 560], [790, 790], [450, 830]]),
    ):
        bits = marker_bits(cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, kind)), rng)
        sheet = Card(Image.new("RGB", (600, 600), "#f8f8f4"))
        px = 440 // len(bits)
        sheet.stamp("aruco_marker", bits, (600 - px * len(bits)) // 2, 62, px)
        sheet.write(76, 530, kind.removeprefix("DICT_").lower().replace("_", " "), 34, ink="#777")
        boxes += lay(canvas, sheet, corners)
    return canvas, boxes


def stage_desk(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """Stage a boarding pass, a book's back and a marker on a light desk."""
    canvas = wood(900, 1200, rng, tone=(150, 186, 214))
    ticket = Card(Image.new("RGB", (1200, 470), "#f4f8fc"))
    draw = ImageDraw.Draw(ticket.image)
    draw.rectangle((0, 0, 1200, 96), fill="#17507e")
    ticket.write(40, 22, "BOARDING PASS", 44, bold=True, ink="#ffffff")
    ticket.write(40, 130, "EXAMPLE / ADA", 40, bold=True)
    ticket.write(40, 200, "ZRH  →  OSL", 64, bold=True, ink="#17507e")
    for x, head, value in ((40, "FLIGHT", "YQ 815"), (300, "GATE", "B 42"), (520, "SEAT", "17F")):
        ticket.write(x, 310, head, 24, ink="#667")
        ticket.write(x, 345, value, 44, bold=True)
    draw.line((760, 96, 760, 470), fill="#9ab", width=4)
    ticket.stamp("qr_code", qr("M1EXAMPLE/ADA  YQ815 ZRHOSL 17F"), 830, 122, 10)
    boxes = lay(canvas, ticket, [[70, 120], [905, 60], [930, 395], [100, 460]])
    book = Card(Image.new("RGB", (520, 700), "#7d2e33"))
    book.write(50, 60, "The Queue", 60, bold=True, ink="#f3e3c8")
    for line in range(9):
        length = int(rng.integers(330, 430))
        y = 170 + 30 * line
        ImageDraw.Draw(book.image).line((50, y, 50 + length, y), fill="#c99", width=6)
    ImageDraw.Draw(book.image).rectangle((110, 470, 470, 650), fill="#fdfdfd")
    book.stamp("barcode", bars("ean13", "978316148410"), 147, 490, 3, 110)
    book.write(168, 606, "9 783161 484100", 28)
    boxes += lay(canvas, book, [[760, 440], [1130, 475], [1085, 880], [715, 850]])
    bits = marker_bits(cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100), rng)
    sheet = Card(Image.new("RGB", (500, 500), "#fbfbf8"))
    sheet.stamp("aruco_marker", bits, 75, 75, 350 // len(bits))
    boxes += lay(canvas, sheet, [[240, 540], [500, 520], [525, 785], [255, 810]])
    return canvas, boxes


def stage_screen(rng: np.random.Generator) -> tuple[np.ndarray, list[Box]]:
    """Stage a telephone that shows a ticket with a QR code."""
    canvas = wood(1200, 900, rng, tone=(70, 110, 150))
    phone = Card(Image.new("RGBA", (640, 1240)))
    draw = ImageDraw.Draw(phone.image)
    draw.rounded_rectangle((0, 0, 639, 1239), 78, fill="#0d0d10")
    draw.rounded_rectangle((22, 22, 617, 1217), 60, fill="#e9eef5")
    draw.rounded_rectangle((60, 220, 579, 1060), 36, fill="#ffffff")
    draw.rounded_rectangle((230, 40, 410, 72), 16, fill="#0d0d10")
    phone.write(70, 120, "My ticket", 54, bold=True)
    phone.stamp("qr_code", qr("TICKET-7F3A-99C2-EXAMPLE-HALL-A-ROW-12", "q"), 105, 265, 13)
    phone.write(100, 790, "Open Air Concert", 46, bold=True)
    phone.write(100, 856, "Sat 21 Nov · 20:00", 36, ink="#556")
    phone.write(100, 912, "Hall A · Row 12 · Seat 8", 36, ink="#556")
    draw.rounded_rectangle((100, 976, 540, 1034), 29, fill="#2d6cdf")
    phone.write(232, 984, "Add guest", 34, ink="#ffffff")
    return canvas, lay(canvas, phone, [[215, 130], [640, 90], [700, 1010], [235, 1080]])


if __name__ == "__main__":
    main()
