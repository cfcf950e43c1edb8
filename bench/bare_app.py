"""An endpoint that only reads an upload: the least a submit can cost in FastAPI."""

from __future__ import annotations

from fastapi import FastAPI, UploadFile

app = FastAPI()


@app.post("/predict/", status_code=201)
async def predict(file: UploadFile) -> dict[str, int]:
    return {"bytes": len(await file.read())}
