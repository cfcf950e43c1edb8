"""Makes the images that `stress` sends: drawn in memory or read from a folder, no two alike."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

VARIANTS = 4
QUALITY = 90
_COMMENT = b"\xff\xfe"
_START = b"\xff\xd8"


@dataclass(frozen=True, slots=True)
class Supply:
    """Encoded images, used in turn."""

    variants: tuple[bytes, ...]

    def image(self, index: int) -> bytes:
        """Image number `index`. A JPEG has the number in a comment segment, so that no two have the
        same bytes and no cache on the way can answer."""
        image = self.variants[index % len(self.variants)]
        if not image.startswith(_START):
            return image
        note = b"yolo-queue stress %d" % index
        segment = _COMMENT + (len(note) + 2).to_bytes(2, "big") + note
        return _START + segment + image[len(_START) :]

    @property
    def mean_bytes(self) -> float:
        return sum(map(len, self.variants)) / len(self.variants)


def from_folder(paths: list[Path]) -> Supply:
    """Read them all into memory. Raises OSError."""
    return Supply(tuple(path.read_bytes() for path in paths))


def drawn(width: int, height: int, *, variants: int = VARIANTS, seed: int = 7) -> Supply:
    """Draw JPEGs that cost as much to send and decode as a camera's of this size. They have printed
    stripes, since without detections the last step of the model would have nothing to do."""
    return Supply(tuple(_draw(width, height, random.Random(seed + n)) for n in range(variants)))  # noqa: S311


def _draw(width: int, height: int, chance: random.Random) -> bytes:
    image = _ground(width, height, chance)
    pen = ImageDraw.Draw(image)
    for _ in range(24):
        x, y = chance.randrange(width), chance.randrange(height)
        size = chance.randrange(max(2, min(width, height) // 30), max(3, min(width, height) // 6))
        shape = chance.choice((pen.ellipse, pen.rectangle))
        shape((x, y, x + size, y + size), fill=_colour(chance), outline=_colour(chance))
    for _ in range(6):
        _stripes(pen, width, height, chance)
    # Sensor noise is what makes the file of a photograph large. One tile of it is repeated.
    edge = 1024
    grain = Image.effect_noise((edge, edge), 14).convert("RGB")
    for left in range(0, width, edge):
        for top in range(0, height, edge):
            box = (left, top, min(left + edge, width), min(top + edge, height))
            part = image.crop(box)
            noisy = ImageChops.add(part, grain.crop((0, 0, *part.size)), offset=-128)
            image.paste(noisy, box)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def _ground(width: int, height: int, chance: random.Random) -> Image.Image:
    """Soft shapes of light and shade: a few random pixels, enlarged."""
    small = Image.new("RGB", (16, 12))
    for x in range(16):
        for y in range(12):
            small.putpixel((x, y), _colour(chance))
    soft = small.filter(ImageFilter.GaussianBlur(1))
    return soft.resize((width, height), Image.Resampling.BICUBIC)


def _stripes(pen: ImageDraw.ImageDraw, width: int, height: int, chance: random.Random) -> None:
    """A white label with bars of random widths, like a printed barcode."""
    unit = max(1, width // 900)
    bars = [chance.randint(1, 4) * unit for _ in range(60)]
    label, tall = sum(bars) + 20 * unit, sum(bars) // 2
    left = chance.randrange(max(1, width - label))
    top = chance.randrange(max(1, height - tall))
    pen.rectangle((left, top, left + label, top + tall), fill="white")
    x = left + 10 * unit
    for number, bar in enumerate(bars):
        if number % 2 == 0:
            pen.rectangle((x, top + 6 * unit, x + bar - 1, top + tall - 6 * unit), fill="black")
        x += bar


def _colour(chance: random.Random) -> tuple[int, int, int]:
    return (chance.randrange(256), chance.randrange(256), chance.randrange(256))
