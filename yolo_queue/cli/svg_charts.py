"""Owns the charts of the stress report: plain SVG text, coloured by the page's own style."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 36
Points = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Series:
    """`style` is a class of the page (`a`, `b`, `bad`), which gives it its colour."""

    name: str
    points: Points
    style: str = "a"
    filled: bool = False


def lines(series: Sequence[Series], *, x_name: str, y_name: str, x_max: float) -> str:
    """Lines over one pair of axes that begin at zero."""
    frame = _Frame(x_max, max((p[1] for s in series for p in s.points), default=0))
    parts = [frame.axes(x_name, y_name)]
    for one in series:
        if not one.points:
            continue
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in one.points)
        if one.filled:
            first, last = frame.x(one.points[0][0]), frame.x(one.points[-1][0])
            ground = frame.y(0)
            parts.append(
                f'<polygon class="area {one.style}" '
                f'points="{first:.1f},{ground:.1f} {path} {last:.1f},{ground:.1f}"/>'
            )
        parts.append(f'<polyline class="line {one.style}" points="{path}"/>')
    return _svg(f"{y_name} over {x_name}", parts) + _legend(series)


def dots(series: Sequence[Series], *, x_name: str, y_name: str, x_max: float) -> str:
    """A dot a point."""
    frame = _Frame(x_max, max((p[1] for s in series for p in s.points), default=0))
    parts = [frame.axes(x_name, y_name)]
    for one in series:
        marks = (
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.6">'
            f"<title>{x:.1f} s: {y:.2f} s</title></circle>"
            for x, y in one.points
        )
        parts.append(f'<g class="dot {one.style}">{"".join(marks)}</g>')
    return _svg(f"{y_name} over {x_name}", parts) + _legend(series)


def stacked_bar(parts: Sequence[tuple[str, float, str]], *, unit: str) -> str:
    """One bar, its parts (name, value, style) as wide as their share, with a legend below."""
    total = sum(value for _, value, _ in parts) or 1.0
    height, at, drawn = 34, 0.0, []
    for name, value, style in parts:
        wide = value / total * WIDTH
        drawn.append(
            f'<rect class="part {style}" x="{at:.1f}" y="0" width="{max(wide - 1, 0.5):.1f}" '
            f'height="{height}"><title>{escape(name)}: {value:.2f} {unit}</title></rect>'
        )
        at += wide
    entries = "".join(
        f'<span><i class="{style}"></i>{escape(name)} <b>{value:,.2f} {unit}</b></span>'
        for name, value, style in parts
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="shares">{"".join(drawn)}</svg>'
        f'<p class="legend">{entries}</p>'
    )


class _Frame:
    """Two axes from zero to a round number."""

    def __init__(self, x_max: float, y_max: float) -> None:
        self._x_step, self._x_top = x_max and _step(x_max), max(x_max, 1e-9)
        self._y_step = _step(y_max or 1)
        self._y_top = math.ceil((y_max or 1) / self._y_step - 1e-9) * self._y_step

    def x(self, value: float) -> float:
        return LEFT + value / self._x_top * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self._y_top * (HEIGHT - TOP - BOTTOM)

    def axes(self, x_name: str, y_name: str) -> str:
        parts = []
        for number in range(round(self._y_top / self._y_step) + 1):
            value = number * self._y_step
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(value):.1f}" '
                f'y2="{self.y(value):.1f}"/><text class="tick" text-anchor="end" x="{LEFT - 8}" '
                f'y="{self.y(value) + 4:.1f}">{value:g}</text>'
            )
        count = int(self._x_top / self._x_step + 1e-9) if self._x_step else 0
        for number in range(count + 1):
            value = number * self._x_step
            parts.append(
                f'<text class="tick" text-anchor="middle" x="{self.x(value):.1f}" '
                f'y="{HEIGHT - BOTTOM + 17}">{value:g}</text>'
            )
        parts.append(
            f'<text class="name" text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 3}">'
            f"{escape(x_name)}</text>"
        )
        return "".join(parts)


def _step(top: float) -> float:
    """1, 2 or 5 times a power of ten, so that an axis has three to six ticks."""
    rough = top / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return float(next(power * n for n in (1, 2, 5, 10) if power * n >= rough - 1e-12))


def _svg(label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _legend(series: Sequence[Series]) -> str:
    entries = (f'<span><i class="{one.style}"></i>{escape(one.name)}</span>' for one in series)
    return f'<p class="legend">{"".join(entries)}</p>'
