"""Of Ultralytics, PyTorch, OpenVINO and pi-heif: what runs and draws a model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.borrowed.base import Borrowed, Name

ULTRALYTICS = "ultralytics-opencv-headless"
MODEL = "ultralytics.engine.model:Model"
PREDICTOR = "ultralytics.engine.predictor:BasePredictor"
DETECTION = "ultralytics.models.yolo.detect.predict:DetectionPredictor"
NMS = "ultralytics.utils.nms"
AUTOBACKEND = "ultralytics.nn.autobackend:AutoBackend"
BACKENDS = "ultralytics.nn.backends"


def third_class_is_near_white(colors: Any) -> bool:
    return bool(colors().palette[2] == (0xF3, 0xF3, 0xF3))


def takes_a_cache_capacity(core: Any) -> bool:
    """The option is in no list of options; OpenVINO raises at one that it does not know."""
    core().set_property("CPU", {"CPU_RUNTIME_CACHE_CAPACITY": "1000"})
    return True


def finds_torchvisions_nms(torch: Any) -> bool:
    """As the worker finds it. The package itself stays out: it changes what Ultralytics calls."""
    package = find_spec("torchvision")
    assert package is not None
    folder = Path(str(package.origin)).parent
    torch.ops.load_library(str(next(folder.glob("_C*.so"))))
    return hasattr(torch.ops.torchvision, "nms")


BORROWED = [
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "Ultralytics keeps its predictor after the first prediction, with the network in it",
        [
            Name(f"{MODEL}.predict", says="self.predictor.setup_model(model=self.model"),
            Name(f"{MODEL}.predict", says="not self.predictor or"),
            Name(f"{AUTOBACKEND}.__init__", says="self.backend = "),
            Name(f"{AUTOBACKEND}.__init__", says="self.format = format"),
            Name(f"{AUTOBACKEND}.__getattr__", says="getattr(self.backend, name)"),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "pictures are letterboxed one by one, to find those that can share a forward pass",
        [
            Name(f"{PREDICTOR}.pre_transform", takes="im"),
            Name(f"{PREDICTOR}.pre_transform", says="LetterBox(self.imgsz,"),
            Name(f"{PREDICTOR}.pre_transform", says="stride=self.model.stride"),
            Name(f"{PREDICTOR}.preprocess", says="im = self.pre_transform(im)"),
            Name(f"{PREDICTOR}.setup_source", says="check_imgsz(self.args.imgsz, stride=stride or"),
            Name("ultralytics.utils.checks:check_imgsz", takes="imgsz stride min_dim ..."),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "a predictor without a network does what comes before and after OpenVINO's",
        [
            Name("ultralytics:YOLO.task_map"),
            Name(PREDICTOR, takes="overrides ..."),
            Name(f"{PREDICTOR}.pre_transform", says="and self.args.rect"),
            Name(f"{PREDICTOR}.pre_transform", says='getattr(self.model, "dynamic", False)'),
            Name(f"{DETECTION}.postprocess", takes="preds img orig_imgs"),
            Name(f"{DETECTION}.postprocess", says="self.args.conf,"),
            Name(f"{DETECTION}.postprocess", says='kwargs.pop("iou", self.args.iou)'),
            Name(f"{DETECTION}.postprocess", says="self.args.classes,"),
            Name(f"{DETECTION}.postprocess", says="max_det=self.args.max_det,"),
            Name(f"{DETECTION}.postprocess", says='getattr(self.model, "end2end", False)'),
            Name(f"{DETECTION}.construct_results", says="self.batch[0]"),
            Name(f"{DETECTION}.construct_result", says="ops.scale_boxes(img.shape[2:],"),
            Name(f"{DETECTION}.construct_result", says="names=self.model.names"),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "overlapping boxes are merged by torchvision's operation, without importing torchvision",
        [
            Name(f"{NMS}:non_max_suppression", says="TorchNMS.nms(boxes, scores, iou_thres)"),
            Name(f"{NMS}:TorchNMS.nms", takes="boxes scores iou_threshold"),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "a classifier in OpenVINO uses as many cores as its process has, and not all of them",
        [Name(f"{BACKENDS}.openvino:OpenVINOBackend.forward", says="self.ov_compiled_model(im)")],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "SiLU becomes part of the convolution before it; unnoticed it costs a third of the time",
        [
            Name(f"{BACKENDS}.pytorch:PyTorchBackend.load_model", says="self.model = model"),
            Name("ultralytics.nn.tasks:BaseModel.fuse", says="m.forward = m.forward_fuse"),
            Name("ultralytics.nn.modules.conv:Conv.forward_fuse", says="self.act(self.conv(x))"),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "the third class' colour is replaced: near-white lines vanish on paper and sky",
        [
            Name("ultralytics.utils.plotting:Colors", holds=third_class_is_near_white),
            Name(
                "ultralytics.utils.plotting:colors.palette", holds=lambda it: isinstance(it, list)
            ),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "a result is drawn on a copy of the size that is sent, by Ultralytics",
        [
            Name("ultralytics.engine.results:Results.new", takes=""),
            Name("ultralytics.engine.results:Results.plot", says="self.orig_img"),
            Name("ultralytics.engine.results:Results.update", says="self.orig_shape"),
            Name("ultralytics.engine.results:Keypoints", takes="keypoints orig_shape"),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "a worker neither prints, nor installs packages, nor asks the internet",
        [
            Name("ultralytics.utils", says='env_bool("YOLO_VERBOSE"'),
            Name("ultralytics.utils", says='env_bool("YOLO_AUTOINSTALL"'),
            Name("ultralytics.utils", says='env_bool("YOLO_OFFLINE")'),
        ],
    ),
    Borrowed(
        ULTRALYTICS,
        "worker/model",
        "published weights are fetched by name",
        [Name("ultralytics.utils.downloads:attempt_download_asset", takes="file ...")],
    ),
    Borrowed(
        "torch",
        "worker/model",
        "convolutions are prepared for oneDNN once; unnoticed this costs a third of the time",
        [
            Name("torch:ops.mkldnn._convolution_pointwise"),
            Name("torch:_C._nn.mkldnn_reorder_conv2d_weight"),
            Name("torch:backends.mkldnn.is_available", takes=""),
        ],
    ),
    Borrowed(
        "torchvision",
        "worker/model",
        "one operation is loaded from its library; the whole package takes 3 s and 100 MB",
        [Name("torch", holds=finds_torchvisions_nms)],
    ),
    Borrowed(
        "openvino",
        "worker/model",
        "machine code is kept for 30 sizes of pictures and not for 120, at 5 MB each",
        [Name("openvino:Core", holds=takes_a_cache_capacity)],
    ),
    Borrowed(
        "pi-heif",
        "worker/model",
        "rows of a HEIC picture are padded, and cut to the picture's width by us",
        [Name("pi_heif.heif:BaseImage.__array_interface__", says="self.stride")],
    ),
]
