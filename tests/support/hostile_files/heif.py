"""Makes hostile AVIF and HEIC files."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image

from tests.support.hostile_files.base import BIG, HUGE, Named, times
from tests.support.images import encoded


def _box(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def _full(kind: bytes, data: bytes = b"", version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + data)


class _Coded:
    """One coded picture: its item type, decoder configuration box and bitstream."""

    def __init__(self, data: bytes, kind: bytes, configuration: bytes) -> None:
        self.kind = kind
        at = data.index(configuration) - 4
        self.configuration = data[at : at + struct.unpack_from(">I", data, at)[0]]
        at = data.index(b"mdat") - 4
        self.stream = data[at + 8 : at + struct.unpack_from(">I", data, at)[0]]


@cache
def _hevc(side: int) -> _Coded:
    out = io.BytesIO()
    image = pillow_heif.from_pillow(Image.new("RGB", (side, side), (90, 120, 30)))
    image.save(out, quality=10, enc_params={"preset": "ultrafast"})
    return _Coded(out.getvalue(), b"hvc1", b"hvcC")


@cache
def _av1(side: int) -> _Coded:
    data = encoded(Image.new("RGB", (side, side), (90, 120, 30)), "AVIF", speed=10, quality=10)
    return _Coded(data, b"av01", b"av1C")


def _ispe(width: int, height: int) -> bytes:
    return _full(b"ispe", struct.pack(">II", width, height))


def _heif(coded: _Coded, **parts: bytes) -> bytes:
    """One item by default; `parts` replace or, as `more`, follow the boxes inside `meta`. The
    bitstream comes first, at byte 36, so that its offset does not depend on them."""
    brand = b"avif" if coded.kind == b"av01" else b"heic"
    front = _box(b"ftyp", brand + bytes(4) + b"mif1" + brand + b"miaf") + _box(
        b"mdat", coded.stream
    )
    boxes = {
        "hdlr": _full(b"hdlr", bytes(4) + b"pict" + bytes(13)),
        "pitm": _full(b"pitm", struct.pack(">H", 1)),
        "iloc": _iloc([(1, 36, len(coded.stream))]),
        "iinf": _iinf([(1, coded.kind)]),
        "iref": b"",
        "iprp": _iprp([coded.configuration, _ispe(64, 64)], _ipma({1: (0x81, 2)})),
        "more": b"",
        **parts,
    }
    return front + _full(b"meta", b"".join(boxes.values()))


def _iloc(items: list[tuple[int, int, int]]) -> bytes:
    entries = b"".join(struct.pack(">HHHII", item, 0, 1, at, size) for item, at, size in items)
    return _full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + entries)


def _infe(item: int, kind: bytes) -> bytes:
    return _full(b"infe", struct.pack(">HH4s", item, 0, kind) + b"\0", version=2)


def _iinf(items: list[tuple[int, bytes]]) -> bytes:
    entries = b"".join(_infe(*item) for item in items)
    return _full(b"iinf", struct.pack(">H", len(items)) + entries)


def _ipma(items: dict[int, tuple[int, ...]]) -> bytes:
    entries = b"".join(
        struct.pack(">HB", item, len(used)) + bytes(used) for item, used in items.items()
    )
    return _full(b"ipma", struct.pack(">I", len(items)) + entries)


def _iprp(properties: list[bytes], association: bytes) -> bytes:
    return _box(b"iprp", _box(b"ipco", b"".join(properties)) + association)


def _iref(kind: bytes, references: list[tuple[int, list[int]]]) -> bytes:
    boxes = (
        _box(kind, struct.pack(f">HH{len(to)}H", item, len(to), *to)) for item, to in references
    )
    return _full(b"iref", b"".join(boxes))


def isobmffs(size: int) -> Named:
    for name, coded in (("heic", _hevc(64)), ("avif", _av1(64))):
        for what, data in (*_box_files(size, coded), *_item_files(size, coded)):
            yield f"{name}-{what}", data
        properties = [coded.configuration, _ispe(64, 64)]
        for what, more in (
            ("empty-pitm-last", {"pitm": b"", "more": _box(b"pitm")}),
            ("empty-ipma-last", {"iprp": b"", "more": _iprp(properties, _box(b"ipma"))}),
            ("short-ipma-last", {"iprp": b"", "more": _iprp(properties, _box(b"ipma", bytes(3)))}),
            ("empty-iloc-last", {"iloc": b"", "more": _box(b"iloc")}),
        ):
            yield f"{name}-{what}", _heif(coded, **more)
        for kind in (b"irot", b"imir", b"av1C", b"clap", b"ispe"):
            used = _ipma({1: (0x81, 2, 3)})
            last = _box(b"ipco", b"".join([*properties, _box(kind)]))
            what = f"empty-{kind.decode().lower()}-last"
            yield f"{name}-{what}", _heif(coded, iprp=b"", more=_box(b"iprp", used + last))
    for name, large in (("heic", _hevc(8192)), ("avif", _av1(8192))):
        honest = [large.configuration, _ispe(8192, 8192)]
        yield f"{name}-67-megapixels", _heif(large, iprp=_iprp(honest, _ipma({1: (0x81, 2)})))
        yield f"{name}-small-ispe-8192-square-coded", _heif(large)


def _box_files(size: int, coded: _Coded) -> Named:
    """Hostile by the boxes alone."""
    whole = _heif(coded)
    front, meta = whole[: whole.rindex(b"meta") - 4], whole[whole.rindex(b"meta") - 4 :]
    for kind in (b"free", b"uuid", b"abcd", b"meta", b"mdat"):
        boxes = times(_box(kind), size)
        yield f"empty-{kind.decode()}-boxes-first", front + boxes + meta
        yield f"empty-{kind.decode()}-boxes-in-meta", _heif(coded, more=boxes)
    yield "zero-size-boxes", front + times(bytes(4) + b"free", size) + meta
    yield "zero-size-boxes-in-meta", _heif(coded, more=times(bytes(4) + b"free", size))
    yield "box-of-size-1-and-2-63", front + struct.pack(">I4sQ", 1, b"free", 1 << 63) + meta
    yield "box-of-size-1-and-16", front + times(struct.pack(">I4sQ", 1, b"free", 16), size) + meta
    yield "box-of-size-1-and-0", front + struct.pack(">I4sQ", 1, b"free", 0) + meta
    yield "box-of-size-4", front + struct.pack(">I4s", 4, b"free") + meta
    yield "box-of-size-2-32", front + struct.pack(">I4s", HUGE, b"free") + meta
    yield "brands-by-the-million", _box(b"ftyp", times(b"heic", size)) + front[28:] + meta
    for kind in (b"iprp", b"moov", b"dinf", b"ipco", b"grpl"):
        nested = _nested(kind, min(100_000, size // 8))
        yield f"nested-{kind.decode()}", front + nested + meta
        yield f"nested-{kind.decode()}-in-meta", _heif(coded, more=nested)
    nested = _nested(b"meta", min(100_000, size // 12), full=True)
    yield "nested-meta", front + nested


def _nested(kind: bytes, depth: int, *, full: bool = False) -> bytes:
    step = 12 if full else 8
    heads = np.zeros(
        depth, np.dtype([("size", ">u4"), ("kind", "S4"), ("flags", "S4")][: 3 if full else 2])
    )
    heads["size"] = np.arange(depth, 0, -1) * step
    heads["kind"] = kind
    return heads.tobytes()


def _item_files(size: int, coded: _Coded) -> Named:
    """Hostile by items, properties and references."""
    properties = [coded.configuration, _ispe(64, 64)]
    count = min(0xFFFF, size // 21)
    items = [(number, coded.kind) for number in range(1, count + 1)]
    yield "65535-items", _heif(coded, iinf=_iinf(items))
    spread = [(number, 36, len(coded.stream)) for number in range(1, count + 1)]
    every = _ipma({number: (0x81, 2) for number in range(1, count + 1)})
    usable = {"iinf": _iinf(items), "iloc": _iloc(spread), "iprp": _iprp(properties, every)}
    yield "65535-usable-items", _heif(coded, **usable)
    infe = _infe(1, coded.kind)
    more = max(1, size // len(infe))
    body = struct.pack(">I", more) + infe * more
    yield "same-item-by-the-million", _heif(coded, iinf=_full(b"iinf", body, version=1))
    lying = _full(b"iinf", struct.pack(">I", HUGE) + infe, version=1)
    yield "2-32-items-declared", _heif(coded, iinf=lying)
    entry = struct.pack(">IHHHII", 1, 0, 0, 1, 36, len(coded.stream))
    body = struct.pack(">BBI", 0x44, 0, size // len(entry)) + times(entry, size)
    yield "locations-by-the-million", _heif(coded, iloc=_full(b"iloc", body, version=2))
    extents = struct.pack(">II", 36, len(coded.stream)) * min(0xFFFF, size // 8)
    body = struct.pack(">BBHHHH", 0x44, 0, 1, 1, 0, len(extents) // 8) + extents
    yield "65535-extents-of-one-item", _heif(coded, iloc=_full(b"iloc", body))
    empty = bytes(8) * min(0xFFFF, size // 8)
    body = struct.pack(">BBHHHH", 0x44, 0, 1, 1, 0, len(empty) // 8) + empty
    yield "65535-empty-extents", _heif(coded, iloc=_full(b"iloc", body))
    yield "location-outside", _heif(coded, iloc=_iloc([(1, 1 << 31, 1 << 31)]))
    many = [*properties, times(_box(b"free"), size)]
    yield "properties-by-the-million", _heif(coded, iprp=_iprp(many, _ipma({1: (0x81, 2)})))
    one = struct.pack(">HBBB", 1, 2, 0x81, 2)
    body = struct.pack(">I", size // len(one)) + times(one, size)
    same = _iprp(properties, _full(b"ipma", body))
    yield "associations-by-the-million", _heif(coded, iprp=same)
    lying = _full(b"ipma", struct.pack(">I", HUGE) + one)
    yield "2-32-associations-declared", _heif(coded, iprp=_iprp(properties, lying))
    boxes = times(_full(b"ipma", struct.pack(">I", 1) + one), size)
    yield "association-boxes-by-the-million", _heif(coded, iprp=_iprp(properties, boxes))

    turns: dict[str, bytes] = {
        "irot": _box(b"irot", b"\1"),
        "imir": _box(b"imir", b"\0"),
        "clap": _box(b"clap", struct.pack(">8I", 64, 1, 64, 1, 0, 1, 0, 1)),
        "unknown-essential": _box(b"zzzz"),
    }
    for name, turn in turns.items():
        used = (0x81, 2, *(0x83,) * 250)
        data = _heif(coded, iprp=_iprp([*properties, turn], _ipma({1: used})))
        yield f"{name}-250-times", data
    crop = _box(b"clap", struct.pack(">8I", HUGE, 1, HUGE, 0, HUGE, 0, HUGE, 0))
    yield "clap-lies", _heif(coded, iprp=_iprp([*properties, crop], _ipma({1: (0x81, 2, 0x83)})))
    for width, height in ((BIG, BIG), (HUGE, HUGE), (1, 1), (0, 0)):
        lying = _iprp([coded.configuration, _ispe(width, height)], _ipma({1: (0x81, 2)}))
        yield f"ispe-{width}-by-{height}-for-64-pixels", _heif(coded, iprp=lying)
    yield "no-ispe", _heif(coded, iprp=_iprp([coded.configuration], _ipma({1: (0x81,)})))
    yield "no-primary", _heif(coded, pitm=_full(b"pitm", struct.pack(">H", 77)))

    yield from _derived_files(coded, properties)


def _derived_files(coded: _Coded, properties: list[bytes]) -> Named:
    """Grids, overlays and references that run in circles."""

    def derived(kind: bytes, sources: dict[int, list[int]], grid: bytes, side: int) -> bytes:
        """Items 1..n of `kind` made from `sources`, all with the same description `grid`; item
        60000 is the coded picture. The description lies in `idat`."""
        numbers = sorted(sources)
        items = [(number, kind) for number in numbers] + [(60_000, coded.kind)]
        places = b"".join(
            struct.pack(">HHHHII", number, 1, 0, 1, 0, len(grid)) for number in numbers
        )
        places += struct.pack(">HHHHII", 60_000, 0, 0, 1, 36, len(coded.stream))
        iloc = _full(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)) + places, version=1)
        used: dict[int, tuple[int, ...]] = {number: (3,) for number in numbers}
        used[60_000] = (0x81, 2)
        return _heif(
            coded,
            iloc=iloc,
            iinf=_iinf(items),
            iref=_iref(b"dimg", list(sources.items())),
            iprp=_iprp([*properties, _ispe(side, side)], _ipma(used)),
            more=_box(b"idat", grid),
        )

    def grid(rows: int, columns: int, width: int, height: int) -> bytes:
        return struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, width, height)

    one = grid(1, 1, 64, 64)
    yield "item-derived-from-itself", derived(b"grid", {1: [1]}, one, 64)
    yield "items-derived-in-a-circle", derived(b"grid", {1: [2], 2: [3], 3: [1]}, one, 64)
    yield "identity-of-itself", derived(b"iden", {1: [1]}, b"", 64)
    chain = {number: [number + 1] for number in range(1, 5_000)}
    chain[5_000] = [60_000]
    yield "identity-chain-of-5000", derived(b"iden", chain, b"", 64)
    yield "grid-chain-of-5000", derived(b"grid", chain, one, 64)
    # Two tiles a level, each again of two tiles: 2^25 decodings.
    double = {number: [number + 1] * 2 for number in range(1, 25)}
    double[25] = [60_000, 60_000]
    yield "identity-doubling", derived(b"iovl", double, _overlay(2, 64), 64)
    yield "grid-doubling", derived(b"grid", double, grid(1, 2, 64, 64), 64)
    tiles = [60_000] * 65_535
    yield (
        "grid-of-256-by-255",
        derived(b"grid", {1: tiles[: 256 * 255]}, grid(255, 256, 16_384, 16_320), 16_384),
    )
    yield (
        "grid-of-100-by-100",
        derived(b"grid", {1: tiles[:10_000]}, grid(100, 100, 6_400, 6_400), 6_400),
    )
    yield (
        "grid-of-256-by-255-for-64-pixels",
        derived(b"grid", {1: tiles[: 256 * 255]}, grid(255, 256, 64, 64), 64),
    )
    yield "grid-larger-than-ispe", derived(b"grid", {1: [60_000]}, grid(1, 1, BIG, BIG), 64)
    wide = struct.pack(">BBBBII", 0, 1, 0, 0, HUGE, HUGE)
    yield "grid-of-2-32-pixels", derived(b"grid", {1: [60_000]}, wide, 64)
    yield "overlay-of-20000", derived(b"iovl", {1: tiles[:20_000]}, _overlay(20_000, 64), 64)
    yield "overlay-canvas-49-megapixels", derived(b"iovl", {1: [60_000]}, _overlay(1, BIG), 64)
    circle = _iref(b"auxl", [(1, [1])]) + _iref(b"thmb", [(1, [1])])
    yield "auxiliary-of-itself", _heif(coded, iref=circle)
    flood = _full(b"iref", _box(b"cdsc", struct.pack(">HHH", 1, 1, 1)) * 200_000)
    yield "200000-references", _heif(coded, iref=flood)


def _overlay(count: int, side: int) -> bytes:
    return struct.pack(">BB4HII", 0, 1, 0, 0, 0, 0xFFFF, side, side) + bytes(8) * count
