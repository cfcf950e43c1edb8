"""Adds to a drawn scene what light, lens, sensor and file format do to a photograph."""

import cv2
import numpy as np

Rng = np.random.Generator


def photograph(image: np.ndarray, rng: Rng, strength: float) -> np.ndarray:
    """Degrade a uint8 BGR scene; `strength` 0 leaves it clean, 1 is a poor phone picture.

    No step moves a pixel, so that the boxes stay true.
    """
    if strength <= 0:
        return image
    picture = image.astype(np.float32)
    if rng.random() < 0.7:
        picture *= _light(picture.shape[:2], rng, strength)[..., None]
    if rng.random() < 0.25:
        picture += _glare(picture.shape[:2], rng, strength)[..., None]
    if rng.random() < 0.5:
        picture *= 1 + rng.normal(0, 0.08, 3).astype(np.float32) * strength
        picture = (picture - 128) * (1.15 - rng.uniform(0.15, 0.65) * strength) + 128
        picture += rng.uniform(-40, 30) * strength
    picture = _blur(np.clip(picture, 0, 255), rng, strength)
    if rng.random() < 0.6:
        grain = rng.normal(0, rng.uniform(1, 14) * strength, picture.shape).astype(np.float32)
        picture += cv2.GaussianBlur(grain, (0, 0), 0.7) * 2 if rng.random() < 0.4 else grain
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    if rng.random() < 0.08:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if rng.random() < 0.5:
        quality = int(95 - rng.uniform(0, 70) * strength)
        _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        picture = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return picture


def _light(shape: tuple[int, int], rng: Rng, strength: float) -> np.ndarray:
    """Return a brightness factor per pixel: a slope, a vignette and hard or soft shadows."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5)
    light = 1 + slope * rng.uniform(0, 0.9) * strength
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(1, 3))):
            shadow = np.zeros(shape, np.float32)
            points = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 6)), 2)) * (width, height)
            cv2.fillPoly(shadow, [points.astype(np.int32)], 1.0)
            shadow = cv2.GaussianBlur(shadow, (0, 0), rng.uniform(0.5, 0.04 * width + 1))
            light *= 1 - shadow * rng.uniform(0.1, 0.65) * strength
    return np.clip(light, 0.15, 1.6).astype(np.float32)


def _glare(shape: tuple[int, int], rng: Rng, strength: float) -> np.ndarray:
    height, width = shape
    spot = np.zeros(shape, np.float32)
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    axes = tuple(int(v) for v in rng.uniform(0.02, 0.2, 2) * width + 1)
    cv2.ellipse(spot, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    return cv2.GaussianBlur(spot, (0, 0), 0.04 * width + 1) * rng.uniform(40, 200) * strength


def _blur(picture: np.ndarray, rng: Rng, strength: float) -> np.ndarray:
    kind = rng.random()
    # Sizes in pixels at 640; a module of a readable code is 2 px or more there.
    if kind < 0.3:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 2.2) * strength + 0.2)
    if kind < 0.45:
        length = 2 * int(rng.uniform(1, 5) * strength) + 3
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        middle = length // 2
        start = tuple(round(float(middle - v)) for v in reach)
        stop = tuple(round(float(middle + v)) for v in reach)
        cv2.line(kernel, start, stop, 1.0, 1)
        return cv2.filter2D(picture, -1, kernel / kernel.sum())
    if kind < 0.65:
        # A small picture blown up, as a thumbnail or a digital zoom is.
        scale = 0.97 - rng.uniform(0, 0.52) * strength
        height, width = picture.shape[:2]
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if kind < 0.75:
        soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
        return np.clip(picture + (picture - soft) * rng.uniform(0.3, 1.2), 0, 255)
    return picture
