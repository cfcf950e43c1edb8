"""Makes requests of a chaos run's clients with plain httpx, and records each as an operation."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.chaos.history import Kind, Operation, Outcome, Recorder

ANSWER_SECONDS = 30.0


class RecordingClient:
    """One process of the history. No method raises because of what the service does or does not
    answer: the operation says so."""

    def __init__(self, http: httpx.AsyncClient, recorder: Recorder, process: str) -> None:
        self._http = http
        self._recorder = recorder
        self.process = process

    async def submit(
        self,
        image: bytes,
        key: str,
        *,
        annotate: bool = True,
        webhook_url: str = "",
        patience: float = ANSWER_SECONDS,
    ) -> Operation:
        """`patience`: seconds after which the client leaves without an answer."""
        params = {"annotate": str(annotate).lower()}
        if webhook_url:
            params["webhook_url"] = webhook_url
        request = self._http.build_request(
            "POST",
            "/predict/",
            params=params,
            headers={"Content-Type": "application/octet-stream", "Idempotency-Key": key},
            content=image,
        )
        sent = {"webhook_url": webhook_url}
        return await self._request(Kind.SUBMIT, request, patience, key=key, sent=sent)

    async def read(self, task_id: str, *, wait: float = 0.0) -> Operation:
        request = self._http.build_request("GET", f"/result/{task_id}", params={"wait": wait})
        return await self._request(Kind.READ, request, ANSWER_SECONDS + wait, task_id=task_id)

    async def cancel(self, task_id: str, *, patience: float = ANSWER_SECONDS) -> Operation:
        request = self._http.build_request("DELETE", f"/result/{task_id}")
        return await self._request(Kind.CANCEL, request, patience, task_id=task_id)

    async def queue(self) -> Operation:
        return await self._request(
            Kind.QUEUE, self._http.build_request("GET", "/queue"), ANSWER_SECONDS
        )

    async def follow(
        self, task_id: str, *, last_event_id: str = "", patience: float = ANSWER_SECONDS
    ) -> Operation:
        """One connection to the events of a job, until the service ends the stream, the connection
        breaks, or `patience` is over. The operation has the events that came until then."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        events: list[dict[str, Any]] = []
        invoked = self._recorder.now()
        try:
            async with (
                asyncio.timeout(patience),
                self._http.stream("GET", f"/result/{task_id}/events", headers=headers) as answer,
            ):
                if answer.is_success:
                    async for event in _events(answer):
                        events.append({"at": self._recorder.now(), **event})
                    result: dict[str, Any] = {"outcome": Outcome.OK, "status": answer.status_code}
                else:
                    await answer.aread()
                    result = _refused(answer)
        except (httpx.TransportError, TimeoutError) as failure:
            result = _unanswered(failure)
        result.setdefault("value", {"events": events})
        return self._record(
            Kind.FOLLOW, invoked, task_id=task_id, sent={"last_event_id": last_event_id}, **result
        )

    async def _request(
        self, kind: Kind, request: httpx.Request, patience: float, **about: Any
    ) -> Operation:
        invoked = self._recorder.now()
        try:
            async with asyncio.timeout(patience):
                answer = await self._http.send(request)
        except (httpx.TransportError, TimeoutError) as failure:
            return self._record(kind, invoked, **about, **_unanswered(failure))
        if not answer.is_success:
            return self._record(kind, invoked, **about, **_refused(answer))
        value = without_picture(answer.json())
        about.setdefault("task_id", value.get("task_id", ""))
        return self._record(kind, invoked, **about, status=answer.status_code, value=value)

    def _record(self, kind: Kind, invoked: float, **result: Any) -> Operation:
        return self._recorder.record(
            Operation(
                number=0,
                process=self.process,
                kind=kind,
                invoked=invoked,
                returned=self._recorder.now(),
                **result,
            )
        )


def without_picture(job: dict[str, Any]) -> dict[str, Any]:
    """A job object with a digest in place of its picture."""
    picture = job.get("image")
    if not isinstance(picture, str) or not picture.startswith("data:"):
        return job
    return {**job, "image": f"sha256:{hashlib.sha256(picture.encode()).hexdigest()}"}


def _refused(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = dict(answer.json())
    except ValueError:
        problem = {"detail": answer.text[:200]}
    return {
        "outcome": Outcome.REFUSED,
        "status": answer.status_code,
        "code": str(problem.get("code", "")),
        "retry_after": answer.headers.get("retry-after", ""),
        "value": problem,
    }


def _unanswered(failure: Exception) -> dict[str, Any]:
    never = isinstance(failure, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return {
        "outcome": Outcome.UNSENT if never else Outcome.UNKNOWN,
        "code": type(failure).__name__,
    }


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The server-sent events of a stream. One that the end of the connection cut off is dropped, as
    the specification demands."""
    name, data = "", ""
    async for line in answer.aiter_lines():
        if not line:
            if data:
                yield {"id": name, "data": json.loads(data)}
            name, data = "", ""
        field, _, text = line.partition(": ")
        if field == "id":
            name = text
        elif field == "data":
            data += text
