"""Serves YOLO as most tutorials end: FastAPI, a dict of results, one background thread.

Written by us in their style, to compare with in bench/throughput.py.
"""

from __future__ import annotations

import base64
import queue
import threading
import uuid
from typing import Any

import cv2
import numpy as np
from fastapi import FastAPI, UploadFile
from ultralytics import YOLO

from shared.settings import Settings

app = FastAPI()
results: dict[str, dict[str, Any]] = {}
todo: queue.Queue[tuple[str, bytes]] = queue.Queue()


def work() -> None:
    model = YOLO(Settings().yolo_model)
    while True:
        task_id, data = todo.get()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        result = model(image, verbose=False)[0]
        _, jpeg = cv2.imencode(".jpg", result.plot())
        picture = base64.b64encode(jpeg.tobytes()).decode()
        results[task_id] = {"status": "completed", "boxes": result.summary(), "image": picture}


threading.Thread(target=work, daemon=True).start()


@app.post("/predict/")
async def predict(file: UploadFile) -> dict[str, str]:
    task_id = str(uuid.uuid4())
    results[task_id] = {"status": "queued"}
    todo.put((task_id, await file.read()))
    return {"task_id": task_id}


@app.get("/result/{task_id}")
async def result(task_id: str) -> dict[str, Any]:
    return results[task_id]


@app.get("/ready")
async def ready() -> dict[str, int]:
    return {"ready_processes": 1}
