from __future__ import annotations

import pytest

from worker.model.openvino_network import is_slow_in_bfloat16

CPUINFO = (
    "vendor_id\t: {vendor}\ncpu MHz\t\t: 2300.000\nflags\t\t: fpu avx512_bf16 avx512_vnni {more}\n"
)


@pytest.mark.parametrize(
    ("vendor", "more", "slow"),
    [
        ("GenuineIntel", "avx512_fp16", True),
        ("GenuineIntel", "amx_bf16 amx_tile", False),
        ("AuthenticAMD", "", False),
    ],
)
def test_bfloat16_is_left_alone_where_it_is_slower(vendor: str, more: str, slow: bool) -> None:
    assert is_slow_in_bfloat16(CPUINFO.format(vendor=vendor, more=more)) is slow


def test_other_processors_are_openvinos_to_judge() -> None:
    assert not is_slow_in_bfloat16("processor : 0\nFeatures : fp asimd bf16\n")
