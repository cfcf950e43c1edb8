"""Composes one picture: which codes lie where on which background."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from backgrounds import background, look_alike, random_colour, surface
from camera import photograph
from printing import around, colours, print_label, turned, warp_onto
from symbols import NAMES, Symbol

Rng = np.random.Generator
Draw = Callable[[str, Rng], Symbol]
_LAYOUTS = {"scatter": 0.53, "fill": 0.16, "tight": 0.14, "grid": 0.08, "sheet": 0.09}
# The smallest module worth learning, in px: below it a symbol is grey mush.
_SMALLEST_MODULE = {"qr_code": 0.75, "barcode": 0.6, "aruco_marker": 1.8}
_DARK = 130  # mean brightness, 0-255, below which ink without paper would not be seen


@dataclass
class Scene:
    """A picture in the making: `image` uint8 BGR, and one (class, x1, y1, x2, y2) per code."""

    image: np.ndarray
    boxes: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    taken: list[np.ndarray] = field(default_factory=list)  # so that no code covers another


def compose(
    height: int, width: int, rng: Rng, draw: Draw, photos: Sequence[np.ndarray], empty: float
) -> Scene:
    """Draw one picture of codes (or, in a part `empty`, of none), at most `height` by `width`."""
    layout = str(rng.choice(list(_LAYOUTS), p=list(_LAYOUTS.values())))
    layout = "none" if rng.random() < empty else layout
    strength = 0.0 if rng.random() < 0.22 else float(rng.beta(1.5, 2.0))
    if layout == "tight":
        scene = _tight(max(height, width), rng, draw)
    elif layout == "fill" and rng.random() < 0.5:
        # A screenshot or a slide: flat colour to the edge.
        scene = Scene(np.full((height, width, 3), random_colour(rng, 200, 256), np.uint8))
    else:
        share = 0.8 if layout == "none" else 0.5
        scene = Scene(background(height, width, rng, photos, photo_share=share))
    if layout in ("fill", "tight") and rng.random() < 0.5:
        strength = 0.0
    if rng.random() < {"none": 0.3, "scatter": 0.6, "sheet": 0.6}.get(layout, 0.0):
        for _ in range(int(rng.integers(1, 5))):
            _paste_look_alike(scene, rng)
    if layout == "scatter":
        for _ in range(int(rng.choice([1, 2, 3, 4, 6, 8], p=[0.3, 0.25, 0.2, 0.12, 0.08, 0.05]))):
            side = np.exp(rng.uniform(np.log(20), np.log(0.75 * min(height, width))))
            _place(scene, draw(str(rng.choice(NAMES)), rng), side, rng)
    elif layout == "fill":
        side = rng.uniform(0.5, 0.97) * min(height, width)
        _place(scene, draw(str(rng.choice(NAMES)), rng), side, rng, central=True)
    elif layout == "grid":
        _place_grid(scene, draw, rng)
    elif layout == "sheet":
        _place_sheet(scene, draw, rng)
    if rng.random() < 0.15:
        _cover_parts(scene, rng)
    scene.image = photograph(scene.image, rng, strength)
    return scene


def _tight(longest: int, rng: Rng, draw: Draw) -> Scene:
    """Draw an exported code: nothing in the picture but the symbol and its quiet zone."""
    name = str(rng.choice(NAMES))
    symbol = draw(name, rng)
    dark, light = colours(name, rng)
    scale = longest * rng.uniform(0.5, 1.0) / max(symbol.ink.shape)
    scale = max(scale, _SMALLEST_MODULE[name] * symbol.modules / (symbol.box[2] - symbol.box[0]))
    ink = cv2.resize(symbol.ink, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image = (light + ink[..., None] * (dark - light)).clip(0, 255).astype(np.uint8)
    x1, y1, x2, y2 = (value * scale for value in symbol.box)
    number, turns = NAMES.index(name), int(rng.choice([0, 0, 0, 1]))
    if turns:
        image, (x1, y1, x2, y2) = (
            np.rot90(image).copy(),
            (y1, ink.shape[1] - x2, y2, ink.shape[1] - x1),
        )
    return Scene(image, [(number, x1, y1, x2, y2)])


def _place_grid(scene: Scene, draw: Draw, rng: Rng) -> None:
    """Lay codes out in rows, each on its own paper, as on a shelf or a page of stickers."""
    height, width = scene.image.shape[:2]
    rows, columns = (int(v) for v in rng.integers(2, 5, 2))
    cell = np.array([width / columns, height / rows])
    name, mixed = str(rng.choice(NAMES)), rng.random() < 0.3
    turn = rng.normal(0, 6) + 90 * rng.integers(2) if rng.random() < 0.6 else 0.0
    fill = rng.uniform(0.4, 0.85)
    for row in range(rows):
        for column in range(columns):
            symbol = draw(str(rng.choice(NAMES)) if mixed else name, rng)
            centre = (np.array([column, row]) + 0.5) * cell
            _place(scene, symbol, fill * cell.min(), rng, centre=centre, turn=turn)


def _place_sheet(scene: Scene, draw: Draw, rng: Rng) -> None:
    """Lay down one sheet with rows of codes: a marker board, a ChArUco board, labels."""
    name = str(rng.choice(NAMES, p=[0.25, 0.25, 0.5]))
    rows, columns = (int(v) for v in rng.integers(2, 8, 2))
    cell, fill, margin = 160, rng.uniform(0.6, 0.92), int(rng.integers(0, 60))
    chequered = name == "aruco_marker" and rng.random() < 0.3
    sheet = np.zeros((rows * cell + 2 * margin, columns * cell + 2 * margin), np.float32)
    corners = []
    for row, column in np.ndindex(rows, columns):
        y, x = margin + row * cell, margin + column * cell
        if chequered and (row + column) % 2:
            sheet[y : y + cell, x : x + cell] = 1
            continue
        symbol = draw(name, rng)
        x1, y1, x2, y2 = symbol.box
        printed = symbol.ink[y1:y2, x1:x2]
        scale = fill * cell / max(printed.shape)
        printed = cv2.resize(printed, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        down, across = printed.shape
        y, x = y + (cell - down) // 2, x + (cell - across) // 2
        sheet[y : y + down, x : x + across] = printed
        corners.append([[x, y], [x + across, y], [x + across, y + down], [x, y + down]])
    dark, light = colours(name, rng)
    size = scene.image.shape[1::-1]
    scale = rng.uniform(0.5, 1.0) * min(size[0] / sheet.shape[1], size[1] / sheet.shape[0])
    scale = max(scale, (20 if name == "aruco_marker" else 45) / cell)
    whole = (0, 0, sheet.shape[1], sheet.shape[0])
    outer = turned(whole, scale, rng, None)
    outer = (outer - outer.mean(0) + rng.uniform(0.4, 0.6, 2) * size).astype(np.float32)
    label = light + sheet[..., None] * (dark - light)
    warp_onto(scene.image, label, np.ones(sheet.shape, np.float32), outer)
    flat = np.array([[0, 0], [whole[2], 0], [whole[2], whole[3]], [0, whole[3]]], np.float32)
    warp = cv2.getPerspectiveTransform(flat, outer)
    for points in np.array(corners, np.float32):
        seen = cv2.perspectiveTransform(points[None], warp)[0]
        bounds = np.concatenate([seen.min(0), seen.max(0)])
        clipped = np.clip(bounds, 0, [*size, *size])
        if np.prod(clipped[2:] - clipped[:2]) > 0.4 * np.prod(bounds[2:] - bounds[:2]):
            scene.boxes.append((NAMES.index(name), *map(float, clipped)))


def _place(
    scene: Scene,
    symbol: Symbol,
    side: float,
    rng: Rng,
    *,
    central: bool = False,
    centre: np.ndarray | None = None,
    turn: float | None = None,
) -> None:
    """Print `symbol`, `side` px wide, into the scene; give up quietly where there is no room."""
    height, width = scene.image.shape[:2]
    side = max(side, symbol.modules * _SMALLEST_MODULE[symbol.name], 18.0)
    label, alpha, box = print_label(symbol, rng, plain=centre is not None)
    for _ in range(8):
        corners = turned(box, side / (box[2] - box[0]), rng, turn)
        if centre is not None:
            where = centre
        elif central:
            where = np.array([width, height]) * rng.normal(0.5, 0.03, 2)
        else:
            where = rng.uniform(0.02, 0.98, 2) * (width, height)
        corners = corners + (where - corners.mean(0)).astype(np.float32)
        outer = around(corners, box, label.shape)
        bounds = np.concatenate([corners.min(0), corners.max(0)])
        clipped = np.clip(bounds, 0, [width, height, width, height])
        seen = np.prod(clipped[2:] - clipped[:2]) / np.prod(bounds[2:] - bounds[:2])
        # Most symbols are whole; some are cut by the frame, never by more than a third.
        if seen < (0.67 if rng.random() < 0.2 else 0.99):
            side *= 0.9 if central or centre is not None else 1.0
            continue
        outer_bounds = np.concatenate([outer.min(0), outer.max(0)])
        if any(_overlap(outer_bounds, other) for other in scene.taken):
            continue
        x1, y1, x2, y2 = clipped.astype(int)
        if scene.image[y1:y2, x1:x2].mean() < _DARK:
            alpha = np.ones_like(alpha)
        warp_onto(scene.image, label, alpha, outer)
        scene.taken.append(bounds)
        scene.boxes.append((NAMES.index(symbol.name), *map(float, clipped)))
        return


def _paste_look_alike(scene: Scene, rng: Rng) -> None:
    height, width = scene.image.shape[:2]
    size = np.exp(rng.uniform(np.log(24), np.log(0.7 * min(height, width)), 2)).astype(int)
    patch = look_alike(int(size[0]), int(size[1]), rng).astype(np.float32)
    outer = turned((0, 0, int(size[1]), int(size[0])), 1.0, rng, None)
    outer = (outer + rng.uniform(0, 1, 2) * (width, height)).astype(np.float32)
    warp_onto(scene.image, patch, np.ones(patch.shape[:2], np.float32), outer)


def _cover_parts(scene: Scene, rng: Rng) -> None:
    """Hide up to about a quarter of some codes behind a finger, a tape or a leaf."""
    texture = surface(*scene.image.shape[:2], rng)
    for _, x1, y1, x2, y2 in scene.boxes:
        if rng.random() < 0.5:
            continue
        size = np.array([x2 - x1, y2 - y1])
        corner = tuple(int(v) for v in np.array([x1, y1]) + size * rng.choice([0, 1], 2))
        mask = np.zeros(scene.image.shape[:2], np.float32)
        axes = tuple(int(v) + 1 for v in size * rng.uniform(0.12, 0.4, 2))
        cv2.ellipse(mask, corner, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        scene.image[mask > 0] = texture[mask > 0]


def _overlap(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.all(first[:2] < second[2:]) and np.all(second[:2] < first[2:]))
