"""Draws the parts of the sample pictures: printed cards, tables, shadow and light."""

import itertools
from dataclasses import dataclass, field

import barcode
import cv2
import numpy as np
import segno
from PIL import Image, ImageDraw, ImageFont

_SHARP = 2  # everything is drawn this many times larger and then averaged down
_LARGEST = 145_000  # bytes of a sample
Box = tuple[str, np.ndarray]


@dataclass
class Card:
    """A printed card: a Pillow image and the corner points of its codes, in pixels."""

    image: Image.Image
    codes: list[Box] = field(default_factory=list)

    def write(
        self, x: int, y: int, text: str, size: int, bold: bool = False, ink: str = "#222"
    ) -> None:
        """Write `text` with its upper left corner at x, y."""
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            font = ImageFont.load_default(size)
        ImageDraw.Draw(self.image).text((x, y), text, fill=ink, font=font)

    def stamp(
        self, name: str, modules: np.ndarray, x: int, y: int, px: int, height: int = 0
    ) -> None:
        """Print `modules` (bool, 2-D) with modules of `px`, bars `height` px high."""
        tall = height or px
        ink = np.kron(modules, np.ones((tall, px))) > 0
        paint = Image.fromarray((ink * 255).astype(np.uint8))
        self.image.paste("#151515", (x, y), paint)
        right, bottom = x + ink.shape[1], y + ink.shape[0]
        self.codes.append((name, np.array([[x, y], [right, y], [right, bottom], [x, bottom]])))


def qr(text: str, error: str = "m") -> np.ndarray:
    """Return the modules of a QR code, True where dark."""
    code = segno.make_qr(text, error=error, boost_error=False)
    return np.array([list(row) for row in code.matrix], bool)


def bars(kind: str, text: str) -> np.ndarray:
    """Return one row of modules of a linear code, True where dark."""
    row = barcode.get_barcode_class(kind)(text).build()[0].replace("G", "1").strip("0")
    return np.array([[module == "1" for module in row]])


def lay(canvas: np.ndarray, card: Card, corners: list[list[int]]) -> list[Box]:
    """Lay `card` on `canvas` with a soft shadow; return its codes' corners on the canvas."""
    width, height = card.image.size
    flat = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    warp = cv2.getPerspectiveTransform(flat, np.array(corners, np.float32) * _SHARP)
    size = (canvas.shape[1], canvas.shape[0])
    pixels = np.asarray(card.image.convert("RGBA"), np.float32)
    mask = cv2.warpPerspective(pixels[..., 3] / 255, warp, size)[..., None]
    inked = cv2.warpPerspective(pixels[..., 2::-1].copy(), warp, size)
    shift = np.float32([[1, 0, 9 * _SHARP], [0, 1, 13 * _SHARP]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(mask, shift, size), (0, 0), 11 * _SHARP)
    canvas *= 1 - 0.55 * shadow[..., None]
    canvas *= 1 - mask
    canvas += inked * mask
    return [
        (name, cv2.perspectiveTransform(points[None].astype(np.float32), warp)[0] / _SHARP)
        for name, points in card.codes
    ]


def finish(
    canvas: np.ndarray, codes: list[Box], rng: np.random.Generator
) -> tuple[np.ndarray, list[dict]]:
    """Average the canvas down, light it unevenly, add grain; list the boxes by name."""
    picture = cv2.resize(canvas, None, fx=1 / _SHARP, fy=1 / _SHARP, interpolation=cv2.INTER_AREA)
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light = 1.1 - 0.28 * (x / width) ** 2 - 0.18 * (y / height)
    picture = picture * light[..., None] + rng.normal(0, 2, picture.shape)
    boxes = []
    for name, points in codes:
        box = [*points.min(0), *points.max(0)]
        boxes.append({"name": name, "box": [round(float(value), 1) for value in box]})
    return np.clip(picture, 0, 255).astype(np.uint8), boxes


def pack(picture: np.ndarray) -> bytes:
    """Encode as JPEG, at the best quality that keeps the sample small."""
    for quality in range(90, 50, -2):
        _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(packed) <= _LARGEST:
            break
    return packed.tobytes()


def wood(
    height: int,
    width: int,
    rng: np.random.Generator,
    tone: tuple[int, int, int] = (90, 130, 172),
) -> np.ndarray:
    """Draw a table of planks: grain stretched along them, and dark joints."""
    height, width = height * _SHARP, width * _SHARP
    planks, table = 5, np.empty((height, width, 3), np.float32)
    edges = np.linspace(0, height, planks + 1).astype(int)
    for top, bottom in itertools.pairwise(edges):
        grain = np.zeros((bottom - top, width), np.float32)
        for rows, columns, weight in ((90, 4, 9), (40, 7, 9), (16, 5, 8), (220, 30, 4)):
            noise = rng.normal(0, weight, (rows, columns)).astype(np.float32)
            grain += cv2.resize(noise, (width, bottom - top), interpolation=cv2.INTER_CUBIC)
        plank = np.float32(tone) * (1 + rng.normal(0, 0.06))
        table[top:bottom] = plank * (1 + grain[..., None] / 160)
        table[top : top + 3 * _SHARP] *= 0.55
    return np.clip(table, 0, 255)


def cardboard(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw corrugated cardboard with a strip of tape across."""
    height, width = height * _SHARP, width * _SHARP
    rows = np.sin(np.arange(height) / (2.2 * _SHARP)).astype(np.float32)[:, None]
    fibre = cv2.resize(rng.normal(0, 1, (450, 150)).astype(np.float32), (width, height))
    board = np.float32([104, 148, 186]) * (1 + 0.018 * rows + 0.035 * fibre)[..., None]
    tape = np.s_[:, int(0.06 * width) : int(0.135 * width)]
    board[tape] = board[tape] * 0.55 + np.float32([150, 190, 215]) * 0.42
    return np.clip(board, 0, 255)


def enlarge(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale `photo` to cover the canvas."""
    size = (width * _SHARP, height * _SHARP)
    return cv2.resize(photo, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
