"""The least that a submit can cost in FastAPI: an endpoint that only reads an upload, and one that
puts it into Redis before it answers, with no record, no queue and no limit."""

from __future__ import annotations

import os
import uuid

import redis.asyncio
from fastapi import FastAPI, UploadFile

app = FastAPI()
store = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])


@app.post("/read/", status_code=201)
async def read(file: UploadFile) -> dict[str, int]:
    return {"bytes": len(await file.read())}


@app.post("/store/", status_code=201)
async def put(file: UploadFile) -> dict[str, int]:
    image = await file.read()
    await store.set(f"bench:{uuid.uuid4()}", image, ex=60)
    return {"bytes": len(image)}
