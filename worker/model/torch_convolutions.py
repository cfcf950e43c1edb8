"""Speeds up PyTorch on a CPU: replaces a network's convolutions by prepared oneDNN ones.

By default PyTorch reorders a convolution's weights for oneDNN at each call, runs small convolutions
with slower code of its own if it has one thread, and computes SiLU in a separate pass. That is a
third of YOLOv8n's time on a core. Here the weights are reordered once, and SiLU is fused into the
convolution. The operation comes from PyTorch's compiler, which itself would need a C++ compiler on
the worker: https://github.com/pytorch/pytorch/blob/main/torch/_inductor/mkldnn_ir.py
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("yolo_queue.worker")

_TOLERANCE = 1e-3
"""Allowed difference of the outputs (pixels, confidences), relative and absolute."""


@dataclass(frozen=True, slots=True)
class _Replacement:
    module: Any
    """An `nn.Conv2d`, or Ultralytics' `Conv` around one."""
    convolution: Any
    forward: Callable[[Any], Any]


def prepare_convolutions(network: Any) -> bool:
    """Replace the convolutions of a fused float32 Ultralytics model on the CPU, in place.

    Returns False and leaves the model unchanged if this PyTorch lacks the operation, which is not
    part of its public interface, or if the network's outputs differ with it.
    """
    import torch

    if not (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in network.parameters())
    ):
        return False
    picture = torch.rand((1, 3, 480, 640), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        shapes, expected = _run_and_watch(network, picture)
        try:
            replacements = list(_replacements(network, shapes))
        except (RuntimeError, TypeError) as error:  # another signature
            log.warning("serving without prepared convolutions: %s", error)
            return False
        before = [(r.module, vars(r.module).get("forward")) for r in replacements]
        weights = [(r.convolution, r.convolution.weight) for r in replacements]
        for each in replacements:
            each.module.forward = each.forward
            # The reordered weights are a copy; drop these, or the model is in memory twice.
            each.convolution.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
        try:
            given = list(_tensors(network(picture)))
            same = len(given) == len(expected) and all(
                torch.allclose(a, b, _TOLERANCE, _TOLERANCE, equal_nan=True)
                for a, b in zip(given, expected, strict=True)
            )
            trouble = "" if same else "the network's outputs differ with them"
        except (RuntimeError, TypeError) as error:
            trouble = str(error).strip().partition("\n")[0]
    if trouble:
        for module, forward in before:
            del module.forward
            if forward is not None:  # Ultralytics sets it in fused modules
                module.forward = forward
        for convolution, weight in weights:
            convolution.weight = weight
        log.warning("serving without prepared convolutions: %s", trouble)
    return not trouble


def _run_and_watch(network: Any, picture: Any) -> tuple[dict[Any, list[int]], list[Any]]:
    """Run the network. Returns the input shape of each convolution, and the outputs."""
    import torch

    shapes: dict[Any, list[int]] = {}

    def watch(module: Any, inputs: Any) -> None:
        shapes[module] = list(inputs[0].shape)

    hooks = [
        module.register_forward_pre_hook(watch)
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    given = list(_tensors(network(picture)))
    for hook in hooks:
        hook.remove()
    return shapes, given


def _replacements(network: Any, shapes: dict[Any, list[int]]) -> Iterator[_Replacement]:
    import torch
    from ultralytics.nn.modules.conv import Conv

    replaced = set()
    for module in network.modules():  # a module comes after the one that contains it
        activation, convolution = "none", module
        fused = getattr(vars(module).get("forward"), "__func__", None) is Conv.forward_fuse
        if fused and isinstance(module.act, torch.nn.SiLU):
            activation, convolution = "swish", module.conv
        if (
            type(convolution) is torch.nn.Conv2d
            and convolution in shapes
            and convolution not in replaced
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
        ):
            replaced.add(convolution)
            forward = _prepared(convolution, activation, shapes[convolution])
            yield _Replacement(module, convolution, forward)


def _prepared(convolution: Any, activation: str, shape: list[int]) -> Callable[[Any], Any]:
    """The replacement of a convolution's `forward`. `shape`: the input shape that the weights are
    reordered for; others work as well."""
    import torch

    numbers = (
        list(convolution.padding),
        list(convolution.stride),
        list(convolution.dilation),
        convolution.groups,
    )
    padding, stride, dilation, groups = numbers
    weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
        convolution.weight.detach().to_mkldnn(), *numbers, shape
    )
    bias, compute = convolution.bias, torch.ops.mkldnn._convolution_pointwise

    def forward(x: Any) -> Any:
        return compute(x, weight, bias, padding, stride, dilation, groups, activation, [], "")

    return forward


def _tensors(given: Any) -> Iterator[Any]:
    """All tensors of an output, which may nest them in tuples, lists and dicts."""
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, list | tuple):
        for each in given:
            yield from _tensors(each)
    elif given is not None:
        yield given
