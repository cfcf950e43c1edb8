"""Serves the least that a submit can be in FastAPI: read an upload, or read it and put it in Redis.

No record, no queue, no limit.
"""

from __future__ import annotations

import uuid

import redis.asyncio
from fastapi import FastAPI, UploadFile

from shared.settings import Settings

app = FastAPI()
store = redis.asyncio.Redis.from_url(Settings().redis_url.get_secret_value())


@app.post("/read/", status_code=201)
async def read(file: UploadFile) -> dict[str, int]:
    return {"bytes": len(await file.read())}


@app.post("/store/", status_code=201)
async def put(file: UploadFile) -> dict[str, int]:
    image = await file.read()
    await store.set(f"bench:{uuid.uuid4()}", image, ex=60)
    return {"bytes": len(image)}
