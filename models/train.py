"""Trains one stage, from random or earlier weights to a model file in half precision.

    python models/train.py --data codes/train --size 416 --hours 0.6 --out models/demo.pt

`--data` is a folder that `synthesize.py` drew. `--weights` goes on from an earlier stage. The
model card in `README.md` lists the stages that made `demo.pt`.
"""

import argparse
import math
import os
import shutil
import time
from pathlib import Path

import torch
from symbols import NAMES
from torch.nn.modules.module import register_module_forward_hook
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.modules.head import Detect
from ultralytics.utils.torch_utils import strip_optimizer

_ARCHITECTURE = Path(__file__).with_name("yolov8-codes.yaml")
_VALIDATION_PART = 0.03
_WARM_UP_PART = 0.02  # of the time


def main() -> None:
    """Read the command line and train one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="synthesized folders")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    parser.add_argument("--weights", type=Path, help="start here; without it, from random weights")
    parser.add_argument("--size", type=int, default=416, help="side of the network's input, px")
    parser.add_argument("--hours", type=float, default=0.5, help="time to spend; sets the schedule")
    parser.add_argument("--rate", type=float, default=0.002, help="initial learning rate")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Ultralytics' own output")
    arguments = parser.parse_args()
    best = train_stage(arguments)
    shutil.copy(best, arguments.out)
    strip_optimizer(arguments.out)
    forget_folders(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


def train_stage(arguments: argparse.Namespace) -> Path:
    """Train for `arguments.hours` and return the path of the best checkpoint."""
    model = YOLO(arguments.weights or _ARCHITECTURE, task="detect")
    model.train(
        trainer=Bfloat16Trainer,
        data=str(write_data_file(arguments.data)),
        imgsz=arguments.size,
        time=arguments.hours,
        batch=arguments.batch,
        # One step per batch: with so few batches Ultralytics' accumulation to 64 wastes them.
        nbs=arguments.batch,
        optimizer="AdamW",
        lr0=arguments.rate,
        lrf=0.01,
        warmup_epochs=0.0,
        # The scenes hold many objects already and are drawn with their own camera effects.
        mosaic=0.0,
        scale=0.25,
        translate=0.05,
        fliplr=0.5,
        flipud=0.5,
        hsv_h=0.5,
        hsv_s=0.5,
        hsv_v=0.3,
        device="cpu",
        amp=False,
        workers=0,
        plots=False,
        patience=1000,
        seed=0,
        project=str(arguments.runs.resolve()),
        name=arguments.out.stem,
        exist_ok=True,
    )
    return Path(model.trainer.best)


def forget_folders(path: Path) -> None:
    """Drop from a checkpoint what tells where it was trained; keep what prediction needs."""
    # Our own file, written a moment ago: unpickling it is safe.
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    kept = {"task": "detect", "imgsz": checkpoint["train_args"]["imgsz"], "model": "yolov8-codes"}
    checkpoint["train_args"] = checkpoint["model"].args = kept
    checkpoint["model"].pt_path = path.name
    checkpoint["model"].yaml["yaml_file"] = _ARCHITECTURE.name
    for name in ("git", "train_results"):
        checkpoint.pop(name, None)
    torch.save(checkpoint, path)


def write_data_file(folders: list[Path]) -> Path:
    """Split the pictures of `folders` for training and for choosing the best epoch."""
    root = folders[0].resolve()
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for folder in folders:
        pictures = sorted(str(path) for path in (folder.resolve() / "images").glob("*.jpg"))
        held = round(len(pictures) * _VALIDATION_PART)
        parts["val"] += pictures[:held]
        parts["train"] += pictures[held:]
    lines = [f"path: {root}", "train: train.txt", "val: val.txt", "names:"]
    for name, pictures in parts.items():
        (root / f"{name}.txt").write_text("\n".join(pictures) + "\n")
    data_file = root / "data.yaml"
    data_file.write_text("\n".join([*lines, *(f"  {i}: {n}" for i, n in enumerate(NAMES))]) + "\n")
    return data_file


class Bfloat16Trainer(DetectionTrainer):
    """Trains the layers in bfloat16 and channels-last, the loss in float32.

    On a CPU with AVX-512 BF16 that more than doubles the speed; Ultralytics offers neither there.
    """

    def _setup_train(self) -> None:
        super()._setup_train()
        # Ultralytics leaves one core free: of two, that would be half of the machine.
        torch.set_num_threads(os.cpu_count() or 1)
        self.model.to(memory_format=torch.channels_last)
        # The head is the last layer; what follows are box coordinates, too fine for bfloat16.
        # A global hook, since one on the model would be pickled with it.
        register_module_forward_hook(_leave_bfloat16)

    def optimizer_step(self) -> None:
        """Step at a rate that follows the clock: up for a moment, then down a half cosine.

        Ultralytics changes the rate per epoch and guesses how many there will be; with four or
        five epochs in the time that is too coarse, and the last steps would be too large.
        """
        spent = (time.time() - self.train_time_start) / (3600 * self.args.time)
        factor = max(self.args.lrf, (1 + math.cos(math.pi * min(1.0, spent))) / 2)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor * min(1.0, spent / _WARM_UP_PART)
        super().optimizer_step()

    def preprocess_batch(self, batch: dict) -> dict:
        """Prepare a batch, then enter bfloat16; Ultralytics restores the setting after the loss."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        torch.set_autocast_dtype("cpu", torch.bfloat16)
        torch.set_autocast_enabled("cpu", True)
        return batch


def _leave_bfloat16(module: torch.nn.Module, _inputs: tuple, output: object) -> object:
    if not (isinstance(module, Detect) and module.training):
        return None
    torch.set_autocast_enabled("cpu", False)
    return _as_float32(output)


def _as_float32(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.float()
    if isinstance(value, dict):
        return {key: _as_float32(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_as_float32(item) for item in value)
    return value


if __name__ == "__main__":
    main()
