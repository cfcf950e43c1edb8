"""The settings: environment variables, read once into one frozen object.

Precedence: environment variable, then the default below. No other module of gateway or worker reads
an environment variable of ours. Names carry their unit. docs/settings.md is generated from here
(`yolo-queue settings`), so a field's description is its documentation.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import InvalidSettings
from shared.redis_access.url import masked
from shared.redis_access.url import parse as parse_redis_url

MIB = 1024 * 1024

MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a model may be called: the name is part of keys, of Celery queues and of URLs."""

MIN_WEBHOOK_SECRET_BYTES = 24
"""As the Standard Webhooks specification has it."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the weights of a model are: a path or an Ultralytics name. `sha256`: what they must
    have; empty: any."""

    weights: str
    sha256: str


class Settings(BaseSettings):
    """Every setting of gateway, worker and command line. Frozen; pass it down, never re-read."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        # A value that is refused may hold a password, and the refusal goes to the log.
        hide_input_in_errors=True,
    )

    # -- where things are -------------------------------------------------------------------
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Broker, job records and results. `redis://`, `rediss://` (TLS), `unix://` or "
        "`sentinel://host:26379,host2:26379/name/0` (docs/scaling.md), with password. `make run` "
        "starts an embedded server when this is unset.",
    )
    yolo_queue: str = Field(
        "yolo",
        pattern=r"^[a-z0-9][a-z0-9_-]*$",
        description="Celery queue and prefix of every Redis key. Gateways and workers with the "
        "same name form one service.",
    )
    host: str = Field("127.0.0.1", description="Address the gateway and Flower listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the gateway.")
    flower_port: int = Field(5555, ge=1, le=65535, description="Port of Flower.")
    data_dir: str = Field(
        "data",
        description="Where `make run` keeps Redis' append-only file and Flower's history; one "
        "`make run` at a time uses it.",
    )
    embedded_redis_port: int = Field(
        6379, ge=1, le=65535, description="Port of the server that `make run` starts, on loopback."
    )
    embedded_redis_max_bytes: int = Field(
        0, ge=0, description="Its memory limit; 0: a quarter of this machine's memory."
    )

    # -- model ------------------------------------------------------------------------------
    yolo_model: str = Field(
        "yolov8n.pt",
        description="Path or Ultralytics name of the weights; the model is called by the file's "
        "stem. Loading a `.pt` file executes pickle code inside it: use only weights you trust, "
        "and pin them with `YOLO_MODEL_SHA256`.",
    )
    yolo_models: str = Field(
        "",
        description="In place of `YOLO_MODEL`: several models, each with a name, e.g. "
        "`coco=yolov8n.pt,codes=models/demo.pt`. Every pool process of the worker loads all of "
        "them.",
    )
    yolo_model_sha256: str = Field(
        "",
        description="Expected SHA-256 of the weights file; the worker refuses any other file. Of "
        "several models by name: `coco=...,codes=...`.",
    )
    default_model: str = Field(
        "",
        pattern=f"{MODEL_NAME}|^$",
        description="The model of requests that name none. Empty: the first of `YOLO_MODELS`, else "
        "`YOLO_MODEL`; the gateway needs the same as the workers.",
    )
    yolo_device: str = Field(
        "auto",
        description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`. `auto` spreads pool "
        "processes over the GPUs there are, else uses the CPU.",
    )
    yolo_runtime: Literal["auto", "torch", "openvino", "onnx", "tensorrt"] = Field(
        "auto", description="What runs the network. `auto`: see docs/performance.md."
    )
    yolo_precision: Literal["auto", "f32"] = Field(
        "auto",
        description="`auto`: with OpenVINO bfloat16 on a CPU that is faster with it, 1.7 times as "
        "fast with the same mAP (docs/performance.md); with TensorRT half precision. `f32`: 32 "
        "bits, detections as PyTorch gives them.",
    )
    model_cache_dir: str = Field(
        "~/.cache/yolo-queue", description="Where exports of the weights (OpenVINO, ...) are kept."
    )
    annotated_max_side: int = Field(
        1920, ge=0, description="Longer side of the annotated picture in pixels; 0 for full size."
    )
    annotated_jpeg_quality: int = Field(85, ge=1, le=100, description="JPEG quality, 1-100.")

    # -- worker -----------------------------------------------------------------------------
    worker_concurrency: int = Field(
        2, ge=1, le=256, description="Pool processes of one worker; each loads its own model."
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="Times a job is started before it goes to the dead letters."
    )
    task_time_limit_seconds: float = Field(
        60,
        gt=0,
        description="Run time after which an attempt is stopped (soft limit); its "
        "process is killed `TASK_KILL_GRACE_SECONDS` later.",
    )
    task_kill_grace_seconds: float = Field(
        5, gt=0, description="From the soft limit to the hard limit, which kills the process."
    )
    lease_seconds: float = Field(
        10,
        ge=2,
        description="A job whose worker has not renewed its lease for so long is given "
        "to another worker.",
    )
    micro_batch_jobs: int = Field(
        1,
        ge=1,
        le=64,
        description="Queued jobs with the same parameters that a pool process may run in one "
        "forward pass. 1: each alone, which is best on a CPU; for GPUs, see "
        "docs/decisions/0004-micro-batching.md.",
    )
    micro_batch_wait_ms: float = Field(
        5,
        ge=0,
        le=100,
        description="How long a batch that found some jobs, but not as many as it may, waits for "
        "more.",
    )
    max_process_bytes: int = Field(
        0,
        ge=0,
        description="Memory of a pool process (its largest resident size so far) above which it is "
        "replaced when its job has ended. 0: never.",
    )
    worker_metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the worker's own Prometheus metrics; 0: none. One worker a port.",
    )
    worker_metrics_host: str = Field(
        "127.0.0.1", description="Address they are served on; everyone who reaches it may read."
    )

    # -- bounds -----------------------------------------------------------------------------
    result_ttl_seconds: int = Field(300, ge=1, description="How long a finished job is kept.")
    max_queue_seconds: int = Field(
        3600, ge=1, description="A job that waits longer becomes `expired`."
    )
    max_queue_jobs: int = Field(
        10_000,
        ge=1,
        description="Jobs waiting at most; then 503. Of several models, each may fill three "
        "quarters of what the others leave.",
    )
    max_queue_bytes: int = Field(
        2048 * MIB,
        ge=1,
        description="Bytes of images waiting at most; then 503. Of several models, each may fill "
        "three quarters of what the others leave.",
    )
    max_upload_bytes: int = Field(20 * MIB, ge=1, description="Size of one image; larger: 413.")
    max_image_pixels: int = Field(
        100_000_000,
        ge=1,
        description="Width x height an image may declare; more: 422. Kinds that take more memory "
        "to decode may have half or a quarter of it (docs/formats.md).",
    )
    max_tiles: int = Field(
        400,
        ge=1,
        description="Tiles that a picture may be cut into (`tile`) at an `imgsz` of 640, fewer at "
        "a larger one; more: 422. 400 are a picture of 100 megapixels in tiles of 640 pixels.",
    )
    max_gateway_upload_bytes: int = Field(
        256 * MIB, ge=1, description="Bytes of uploads in the gateway's memory at once; then 503."
    )
    max_client_upload_bytes: int = Field(
        128 * MIB,
        ge=1,
        description="Of these, bytes of one client (API key or address); also the largest batch.",
    )
    min_upload_bytes_per_second: int = Field(
        16 * 1024,
        ge=1,
        description="Average rate below which a body is refused (408), after its first 10 s.",
    )
    max_gateway_response_bytes: int = Field(
        256 * MIB,
        ge=16 * MIB,
        description="Bytes of answers in the gateway's memory that their clients are slow to "
        "read; above it, the slowest client is cut off.",
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        description="Connections of one gateway at once; then idle ones are closed for new ones, "
        "and 503 if there is none. Fewer if its limit on open files allows fewer.",
    )
    redis_memory_limit_ratio: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of Redis' `maxmemory` above which uploads get 503, so "
        "that results of accepted jobs still fit.",
    )
    redis_timeout_seconds: float = Field(
        1.5, gt=0, description="How long the gateway waits for Redis before it answers 503."
    )

    # -- dead letters -----------------------------------------------------------------------
    dead_max_jobs: int = Field(100, ge=0, description="Dead letters kept at most.")
    dead_max_bytes: int = Field(256 * MIB, ge=0, description="Their images' bytes at most.")
    dead_ttl_seconds: int = Field(7 * 86_400, ge=1, description="How long one is kept.")

    # -- who may do what --------------------------------------------------------------------
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Comma-separated keys. Empty: open to everyone who can reach the port."
    )
    rate_limit: str = Field(
        "",
        description="Images per key or address, e.g. `10/second` or `100/minute;5/second`; each "
        "image of a batch counts.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated addresses or networks of your reverse proxies, whose "
        "`X-Forwarded-For` and `X-Forwarded-Proto` are believed. Empty: nobody's.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Comma-separated origins that browsers may call from. Empty: none."
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs webhooks (Standard Webhooks): `whsec_` and at least 24 random bytes in "
        "Base64, e.g. `whsec_$(openssl rand -base64 32)`. Empty: none.",
    )
    webhook_allow_private: bool = Field(
        False, description="Whether webhooks may go to private, loopback and link-local addresses."
    )
    max_batch_files: int = Field(
        32, ge=1, description="Images of one `POST /predict/batch` at most."
    )
    flower_basic_auth: SecretStr = Field(
        SecretStr(""), description="`user:password` of Flower. `make run` makes one up if unset."
    )
    flower_url: str = Field(
        "",
        description="Where the page's link to Flower leads; the page's host and `FLOWER_PORT` "
        "unless set, no link with `none`.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`json`: one object a line, with the task's id where there is one."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Level of the logs."
    )
    otel_exporter_otlp_endpoint: str = Field(
        "",
        description="Where traces go, OTLP over HTTP, e.g. `http://collector:4318`; needs the "
        "dependency group `otel`. The other standard `OTEL_...` variables count too. Empty: no "
        "traces.",
    )

    @field_validator("api_keys", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        parse_redis_url(value.get_secret_value())
        return value

    @field_validator("rate_limit")
    @classmethod
    def _parse_rate(cls, value: str) -> str:
        if value:
            from limits import parse_many

            parse_many(value)  # raises ValueError with the offending text
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _check_webhook_secret(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text and not _is_webhook_secret(text):
            raise ValueError(
                f"must be `whsec_` and at least {MIN_WEBHOOK_SECRET_BYTES} random bytes in Base64; "
                'make one: echo "whsec_$(openssl rand -base64 32)"'
            )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if text == "*":  # would believe whatever a client writes in front
                raise ValueError("name the proxies' addresses or networks; `*` would believe all")
            ip_network(text)  # raises ValueError with the offending text
        return value

    @model_validator(mode="after")
    def _check_lease(self) -> Settings:
        if self.lease_seconds > 25:
            raise ValueError("LEASE_SECONDS above 25 breaks the promise of recovery within 30 s")
        return self

    @model_validator(mode="after")
    def _check_batch(self) -> Settings:
        if self.micro_batch_jobs > 1 and self.max_attempts == 1:
            # An image that kills its process takes its mates' attempt with it.
            raise ValueError("MICRO_BATCH_JOBS above 1 needs MAX_ATTEMPTS of at least 2")
        return self

    @model_validator(mode="after")
    def _check_models(self) -> Settings:
        model_sources(self)  # raises ValueError that says what is wrong
        return self

    @property
    def models(self) -> dict[str, ModelSource]:
        """The models that a worker with these settings serves, by name."""
        return model_sources(self)

    @property
    def task_hard_limit_seconds(self) -> float:
        """Run time after which the pool process is killed."""
        return self.task_time_limit_seconds + self.task_kill_grace_seconds

    @property
    def record_ttl_seconds(self) -> int:
        """How long the image and the events of an unfinished job live: through the queue, every
        attempt and long enough after to be read as expired. A job that old has expired."""
        attempts = int(self.max_attempts * self.task_hard_limit_seconds) + 1
        return self.max_queue_seconds + attempts + self.result_ttl_seconds

    def masked_redis_url(self) -> str:
        """`REDIS_URL` without its password, for messages and logs."""
        return masked(self.redis_url.get_secret_value())


def model_sources(settings: Settings) -> dict[str, ModelSource]:
    """The models of `YOLO_MODELS` or `YOLO_MODEL`, by name. Raises `ValueError`."""
    digests = settings.yolo_model_sha256
    if settings.yolo_models:
        weights_of = _pairs("YOLO_MODELS", settings.yolo_models)
    else:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(settings.yolo_model).stem).lstrip("._-")[:64]
        weights_of = {name or "model": settings.yolo_model}
        if "=" not in digests:
            digests = f"{name}={digests}" if digests else ""
    expected = _pairs("YOLO_MODEL_SHA256", digests)
    for digest in expected.values():
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise ValueError("YOLO_MODEL_SHA256: a SHA-256 has 64 hexadecimal digits")
    for name in weights_of:
        if not re.match(MODEL_NAME, name):
            raise ValueError(
                f"YOLO_MODELS: {name!r} cannot be a model's name; use letters, digits, `.`, `_` "
                "and `-`, 64 at most"
            )
    # Digests of other models are those of other workers with the same environment.
    return {
        name: ModelSource(weights, expected.get(name, "")) for name, weights in weights_of.items()
    }


def _pairs(variable: str, text: str) -> dict[str, str]:
    """From `name=value,name=value`."""
    pairs: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{variable}: {part!r} is not `name=value`")
        if name in pairs:
            raise ValueError(f"{variable}: {name} is there twice")
        pairs[name] = value
    return pairs


def load_settings() -> Settings:
    """The settings as the environment has them. Raises `InvalidSettings`, which names what is
    wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise InvalidSettings("; ".join(map(_in_words, error.errors()))) from error


def _in_words(problem: ErrorDetails) -> str:
    # Without the value: it may hold a password.
    message = problem["msg"].removeprefix("Value error, ")
    name = "_".join(map(str, problem["loc"])).upper()
    return f"{name}: {message}" if name else message


def _is_webhook_secret(text: str) -> bool:
    """Whether every library for Standard Webhooks reads the same key from it."""
    prefix, _, digits = text.partition("_")
    unpadded = digits.rstrip("=")  # padding may be left out
    try:
        key = base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except ValueError:
        return False
    return prefix == "whsec" and len(key) >= MIN_WEBHOOK_SECRET_BYTES
