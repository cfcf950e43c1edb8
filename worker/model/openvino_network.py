"""Runs a network with OpenVINO on the CPU. Input: uint8 BGR pixels as OpenCV decodes them; output:
raw predictions.

Ultralytics' own path into OpenVINO copies a picture five times (to a tensor, to planes, to RGB, to
32 bits, to 0..1) and sets up a data source for each call: 3 ms of 36 for YOLOv8n on a CPU. Here the
network is compiled with those conversions as its first layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.model.images import Pixels

FIXED_SIZES = frozenset({(480, 640), (640, 480), (384, 640), (640, 384)})
"""Height and width of what cameras send, 4:3 and 16:9, letterboxed to 640. A constant, not the
sizes that came most often: in bfloat16 two workers would then answer the same picture a little
differently."""


CPUINFO = Path("/proc/cpuinfo")


def is_slow_in_bfloat16(cpuinfo: str) -> bool:
    """Whether a CPU, described as in `/proc/cpuinfo`, has instructions for bfloat16 that take
    longer than those for 32 bits.

    Intel's do where AMX is missing, which a virtual machine may hide: YOLOv8n took 1.5 times as
    long on such a Xeon, and 0.6 times on an AMD EPYC (docs/performance.md). OpenVINO only looks
    for the instructions.
    """
    words = set(cpuinfo.split())
    return "GenuineIntel" in words and "amx_bf16" not in words


def openvino_options(threads: int, precision: str) -> dict[str, Any]:
    """Options for compiling a network.

    `threads`: cores that one call may use; by default OpenVINO takes all of them in each process.
    `precision`: `f32`, or `auto` for bfloat16 where this CPU is faster with it.
    """
    import openvino

    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        # Keeps machine code for about 30 input sizes, 5 MB each. The default keeps 120.
        "CPU_RUNTIME_CACHE_CAPACITY": "1000",
    }
    slow = CPUINFO.exists() and is_slow_in_bfloat16(CPUINFO.read_text())
    if precision == "f32" or slow:
        options["INFERENCE_PRECISION_HINT"] = openvino.Type.f32
    return options


def compile_network(folder: Path, options: dict[str, Any]) -> Any:
    """Compile an Ultralytics export unchanged. Input: N x 3 x H x W float32 RGB in 0..1."""
    import openvino

    return openvino.Core().compile_model(next(folder.glob("*.xml")), "CPU", options)


class OpenVINONetwork:
    """A network on the CPU that takes pixels. Not to be shared between threads.

    One compiled network takes pictures of any size. With `fixed_sizes`, each of `FIXED_SIZES` has
    one of its own as well, which takes 0.95 of the time, for 40 MB of memory and 0.2 s of
    compilation. Without, a picture gets the same answer alone as in any batch, bit for bit; use
    that where pictures come in batches.
    """

    def __init__(self, folder: Path, options: dict[str, Any], *, fixed_sizes: bool = True) -> None:
        """`folder`: an Ultralytics export. `options`: from `openvino_options`."""
        self._folder, self._options = folder, options
        self._any_shape = self._request()
        self._by_shape: dict[tuple[int, ...], Any] = {}
        for height, width in sorted(FIXED_SIZES) if fixed_sizes else ():
            shape = (1, height, width, 3)
            self._by_shape[shape] = self._request(shape)

    def __call__(self, batch: Pixels) -> list[NDArray[np.float32]]:
        """Run N x H x W x 3 uint8 BGR pictures. Returns one array per output of the network, N
        first. The arrays are the network's own memory: the next call overwrites them."""
        request = self._by_shape.get(batch.shape, self._any_shape)
        outputs = request.infer([batch], share_inputs=True, share_outputs=True)
        return list(outputs.values())

    def _request(self, shape: tuple[int, ...] | None = None) -> Any:
        """Compile the network for batches of `shape` (N x H x W x 3) alone, or for all of them."""
        import openvino
        from openvino.preprocess import ColorFormat, PrePostProcessor

        core = openvino.Core()
        model = core.read_model(next(self._folder.glob("*.xml")))
        if shape is not None:
            count, height, width, channels = shape
            model.reshape([count, channels, height, width])
        steps = PrePostProcessor(model)
        outside = steps.input().tensor()
        outside.set_element_type(openvino.Type.u8)
        outside.set_layout(openvino.Layout("NHWC"))
        outside.set_color_format(ColorFormat.BGR)
        inside = steps.input().preprocess()
        inside.convert_color(ColorFormat.RGB)
        inside.convert_element_type(openvino.Type.f32)
        inside.scale(255.0)
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        return core.compile_model(steps.build(), "CPU", self._options).create_infer_request()
