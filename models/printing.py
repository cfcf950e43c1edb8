"""Puts a symbol into a picture: printed in ink on paper, rotated, in perspective."""

import cv2
import numpy as np
from backgrounds import random_colour
from lettering import page_mask
from symbols import Symbol

Rng = np.random.Generator
_SUPERSAMPLING = 3


def print_label(
    symbol: Symbol, rng: Rng, *, plain: bool
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Print `symbol` in ink on paper: BGR float32, alpha float32, and its box on the label."""
    ink, box = symbol.ink, symbol.box
    height, width = ink.shape
    if not plain and rng.random() < 0.4:
        # A label, a page or a screen: more paper around the symbol, often with text on it.
        pads = [int(v) for v in rng.uniform(0, 0.45, 4) * min(height, width)]
        ink = np.pad(ink, ((pads[0], pads[1]), (pads[2], pads[3])))
        if rng.random() < 0.7 and min(pads[:2]) > 14:
            ink[: pads[0] - 6] = page_mask(pads[0] - 6, ink.shape[1], rng)
            ink[-pads[1] + 6 :] = page_mask(pads[1] - 6, ink.shape[1], rng)
        if rng.random() < 0.3:
            cv2.rectangle(ink, (0, 0), (ink.shape[1] - 1, ink.shape[0] - 1), 1.0, 4)
        box = (box[0] + pads[2], box[1] + pads[0], box[2] + pads[2], box[3] + pads[0])
    dark, light = colours(symbol.name, rng)
    alpha = np.ones(ink.shape, np.float32)
    if rng.random() < 0.06:
        # Ink straight on the thing (cardboard, a wall): the paper is what is there.
        alpha = ink
    return light + ink[..., None] * (dark - light), alpha, box


def colours(name: str, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return ink and paper, BGR float32; seldom light on dark, and never for markers."""
    dark, light = random_colour(rng, 0, 90), random_colour(rng, 185, 256)
    if rng.random() < 0.35:
        dark, light = np.zeros(3, np.float32), np.full(3, 255, np.float32)
    elif rng.random() < 0.2:
        # A brand's colour: one channel may be as bright as the paper, never all of them.
        dark = rng.permutation([*rng.uniform(0, 130, 2), rng.uniform(60, 256)]).astype(np.float32)
        light = random_colour(rng, 225, 256)
    if name != "aruco_marker" and rng.random() < 0.07:
        dark, light = light, dark
    return dark, light


def turned(
    box: tuple[int, int, int, int], scale: float, rng: Rng, turn: float | None
) -> np.ndarray:
    """Return the box's four corners, turned and seen in perspective, around the origin."""
    half = np.array([box[2] - box[0], box[3] - box[1]]) * scale / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    tilt = 0.0 if rng.random() < 0.35 else rng.uniform(0, 0.16)
    if turn is None:
        pick = rng.random()
        turn = 0.0 if pick < 0.3 else rng.normal(0, 12) if pick < 0.75 else rng.uniform(0, 360)
        turn += 90 * rng.integers(4) if rng.random() < 0.3 else 0
    # A tilted plane: nearer corners grow, farther ones shrink, and one axis is foreshortened.
    if tilt:
        direction = rng.normal(0, 1, 2)
        direction /= np.linalg.norm(direction)
        depth = corners @ direction / np.abs(corners @ direction).max()
        corners = corners / (1 + tilt * depth[:, None])
        squeeze = 1 - rng.uniform(0, 2.2) * tilt
        along = corners @ direction
        corners = corners + np.outer(along * (squeeze - 1), direction)
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (corners @ rotation).astype(np.float32)


def around(
    corners: np.ndarray, box: tuple[int, int, int, int], shape: tuple[int, ...]
) -> np.ndarray:
    """Return the label's corners in the scene, given those of the box printed on it."""
    x1, y1, x2, y2 = box
    flat = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    warp = cv2.getPerspectiveTransform(flat, corners)
    height, width = shape[:2]
    edge = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float32)
    return cv2.perspectiveTransform(edge, warp)[0]


def warp_onto(image: np.ndarray, label: np.ndarray, alpha: np.ndarray, outer: np.ndarray) -> None:
    """Blend `label` into the quadrilateral `outer`, supersampled so that thin bars stay even."""
    height, width = image.shape[:2]
    x1, y1 = np.maximum(np.floor(outer.min(0)).astype(int) - 1, 0)
    x2, y2 = np.minimum(np.ceil(outer.max(0)).astype(int) + 1, (width, height))
    if x2 - x1 < 2 or y2 - y1 < 2:
        return
    reach = np.linalg.norm(outer - np.roll(outer, 1, 0), axis=1).max()
    fine = _SUPERSAMPLING if reach < 250 else 2
    shrink = min(1.0, 1.3 * fine * reach / max(label.shape[:2]))
    if shrink < 0.9:
        label = cv2.resize(label, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, (label.shape[1], label.shape[0]), interpolation=cv2.INTER_AREA)
    rows, columns = label.shape[:2]
    flat = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    target = ((outer - (x1, y1)) * fine).astype(np.float32)
    # Both ends count from pixel corners, warpPerspective from pixel centres.
    warp = cv2.getPerspectiveTransform(flat - 0.5, target - 0.5)
    size = (int(x2 - x1) * fine, int(y2 - y1) * fine)
    inked = cv2.warpPerspective(np.dstack([label, alpha]), warp, size, flags=cv2.INTER_LINEAR)
    # Colour outside the label must not bleed into its edge: weigh it by alpha before averaging.
    inked[..., :3] *= inked[..., 3:] if alpha.min() < 1 else 1
    small = cv2.resize(inked, (int(x2 - x1), int(y2 - y1)), interpolation=cv2.INTER_AREA)
    patch = image[y1:y2, x1:x2]
    blended = patch * (1 - small[..., 3:]) + small[..., :3]
    image[y1:y2, x1:x2] = np.clip(blended, 0, 255).astype(np.uint8)
