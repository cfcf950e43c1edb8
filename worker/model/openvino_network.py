"""Owns a network in OpenVINO: pixels in as OpenCV has them, raw predictions out.

Ultralytics' own way to an OpenVINO network copies a picture five times (to a tensor, to planes, to
RGB, to 32 bits, to 0..1) and sets up a data source for each call: 3 ms of 36 for YOLOv8n on a CPU.
Here the network is compiled with those conversions as its first layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.model.images import Pixels

OWN_NETWORKS = frozenset({(480, 640), (640, 480), (384, 640), (640, 384)})
"""Height and width of what cameras send, 4:3 and 16:9, once it is letterboxed to 640. Not what came
most often: in bfloat16 a picture would be answered a little differently by two workers."""


def openvino_options(threads: int, precision: str) -> dict[str, Any]:
    """`threads`: how many cores one call may use; left alone, OpenVINO takes all of them in each
    process. `precision`: `f32`, or `auto` for what OpenVINO finds fastest on this CPU, which is
    bfloat16 where the CPU computes in it."""
    import openvino

    options: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        # Machine code for about 30 sizes of pictures, 5 MB each. Left alone, it is 120 sizes.
        "CPU_RUNTIME_CACHE_CAPACITY": "1000",
    }
    if precision == "f32":
        options["INFERENCE_PRECISION_HINT"] = openvino.Type.f32
    return options


def compile_network(folder: Path, options: dict[str, Any]) -> Any:
    """The network of an Ultralytics export as it is: planes of RGB in 0..1, 32 bits."""
    import openvino

    return openvino.Core().compile_model(next(folder.glob("*.xml")), "CPU", options)


class OpenVINONetwork:
    """A network on the CPU that takes pixels. Not to be shared between threads.

    One network takes pictures of any size. The sizes of `OWN_NETWORKS` have one each, compiled at
    the start, which OpenVINO computes in 0.95 of the time, for 40 MB of memory and 0.2 s of
    compilation. Without `own_networks`, as where pictures may come in batches, one picture
    is answered bit for bit as it is in a batch of any size.
    """

    def __init__(self, folder: Path, options: dict[str, Any], *, own_networks: bool = True) -> None:
        self._folder, self._options = folder, options
        self._any_size = self._request()
        self._own: dict[tuple[int, ...], Any] = {}
        for height, width in sorted(OWN_NETWORKS) if own_networks else ():
            shape = (1, height, width, 3)
            self._own[shape] = self._request(shape)

    def __call__(self, batch: Pixels) -> list[NDArray[np.float32]]:
        """What the network's heads give for N x H x W x 3 uint8 BGR pictures, each with an N in
        front. The arrays are the network's own memory: the next call overwrites them."""
        request = self._own.get(batch.shape, self._any_size)
        outputs = request.infer([batch], share_inputs=True, share_outputs=True)
        return list(outputs.values())

    def _request(self, shape: tuple[int, ...] | None = None) -> Any:
        """`shape`: of the only batches that it takes; None takes all."""
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
