"""Takes guards out of Lua scripts: finds every condition, and writes the script without it.

A condition is what stands behind `if`, `elseif` and `while`. Each of its terms is taken out (`true`
among terms joined by `and`, `false` among terms joined by `or`). A whole condition is made always
true, and always false. A loop is only made never to run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"--[^\n]*|'(?:\\.|[^'\\])*'|[A-Za-z_]\w*|\s+|.", re.DOTALL)
_ENDS = {"if": "then", "elseif": "then", "while": "do"}

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Mutant:
    script: str
    line: int
    guard: str
    """The condition or the term, as it is written."""
    value: str
    """What it is replaced by: `true` or `false`."""
    text: str
    """The whole script with it."""

    @property
    def name(self) -> str:
        return f"{self.script}.lua:{self.line}: `{self.guard}` is {self.value}"


def mutants(script: str, text: str) -> Iterator[Mutant]:
    for keyword, span in _conditions(text):
        terms = list(_terms(text, span))
        spans = {(span, "false")} if keyword == "while" else {(span, "true"), (span, "false")}
        if len(terms) > 1:
            spans |= {
                (term, "true" if joined_by == "and" else "false") for term, joined_by in terms
            }
        for (start, end), value in sorted(spans):
            guard = " ".join(text[start:end].split())
            if guard != "true":
                changed = text[:start] + value + text[end:]
                yield Mutant(script, text.count("\n", 0, start) + 1, guard, value, changed)


def _tokens(text: str, span: Span) -> Iterator[tuple[str, int]]:
    at, end = span
    while at < end:
        found = _TOKEN.match(text, at, end)
        assert found
        if not found[0].isspace() and not found[0].startswith("--"):
            yield found[0], at
        at = found.end()


def _conditions(text: str) -> Iterator[tuple[str, Span]]:
    keyword, start = "", 0
    for token, at in _tokens(text, (0, len(text))):
        if token in _ENDS:
            keyword, start = token, at + len(token) + 1
        elif keyword and token == _ENDS[keyword]:
            yield keyword, (start, start + len(text[start:at].rstrip()))
            keyword = ""


def _terms(text: str, span: Span) -> Iterator[tuple[Span, str]]:
    """The terms of a condition, each with what joins it to its neighbours."""
    for operator in ("or", "and"):  # `or` binds less
        parts = list(_split(text, span, operator))
        if len(parts) > 1:
            for part in parts:
                yield from _inner(text, part, operator)
            return


def _inner(text: str, span: Span, joined_by: str) -> Iterator[tuple[Span, str]]:
    start, end = span
    inside = (start + 1, end - 1) if text[start] == "(" and text[end - 1] == ")" else span
    finer = list(_terms(text, inside))
    yield from finer or [(span, joined_by)]


def _split(text: str, span: Span, operator: str) -> Iterator[Span]:
    depth, (start, end) = 0, span
    for token, at in _tokens(text, span):
        depth += (token in "([{") - (token in ")]}")
        if token == operator and depth == 0:
            yield _trimmed(text, start, at)
            start = at + len(operator)
    yield _trimmed(text, start, end)


def _trimmed(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))
