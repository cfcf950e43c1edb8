"""Serves the same work with LitServe, synchronous, two workers: what a user might pick instead.

python -m bench.litserve_app PORT      (pip install litserve)
"""

import base64
import sys
from typing import Any

import cv2
import litserve
import numpy as np


class YoloAPI(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        import torch
        from ultralytics import YOLO

        from shared.settings import Settings
        from worker.model.openvino_network import compile_network, openvino_options
        from worker.model.runtimes import export_metadata, prepare

        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        settings = Settings()
        served = prepare(settings)
        self.model = YOLO(served.path, task=export_metadata(served.path).get("task"), verbose=False)
        blank = np.zeros((480, 640, 3), np.uint8)
        self.model.predict(blank, device="cpu", verbose=False)
        if served.runtime == "openvino":  # the threads and the precision that we have
            compiled = compile_network(served.path, openvino_options(1, settings.yolo_precision))
            self.model.predictor.model.backend.ov_compiled_model = compiled

    def decode_request(self, request: Any, **_: Any) -> bytes:
        return bytes(request["file"].file.read())

    def predict(self, data: bytes, **_: Any) -> dict[str, Any]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        result = self.model.predict(image, device="cpu", verbose=False)[0]
        _ok, jpeg = cv2.imencode(".jpg", result.plot(), [cv2.IMWRITE_JPEG_QUALITY, 85])
        picture = base64.b64encode(jpeg.tobytes()).decode()
        return {"status": "completed", "boxes": result.summary(), "image": picture}

    def encode_response(self, output: dict[str, Any], **_: Any) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(YoloAPI(), accelerator="cpu", workers_per_device=2, timeout=120)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        generate_client_file=False,
    )
