"""A client that sends at a steady rate and does not give up: it retries with the same
Idempotency-Key until it gets an answer, so every job is accepted exactly once."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from dataclasses import dataclass, field

import httpx

from tests.chaos.cases import Case


@dataclass
class Load:
    url: str
    cases: list[Case]
    rate: float
    """Jobs a second. All cases are sent, and again from the last half of them until `finish`."""
    accepted: dict[str, Case] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    slowest_refusal_seconds: float = 0.0
    unexpected: list[str] = field(default_factory=list)
    accepted_at: list[float] = field(default_factory=list)

    def start(self) -> None:
        self._todo: queue.Queue[tuple[int, Case] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._finishing = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(8)]
        self._threads.append(threading.Thread(target=self._pace, daemon=True))
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Send what is left of the cases, and wait until all is accepted."""
        self._finishing.set()
        for thread in self._threads:
            thread.join()

    def _pace(self) -> None:
        begin = time.monotonic()
        again = itertools.cycle(self.cases[len(self.cases) // 2 :])
        for number, case in enumerate(itertools.chain(self.cases, again)):
            if number >= len(self.cases) and self._finishing.is_set():
                break
            time.sleep(max(0.0, begin + number / self.rate - time.monotonic()))
            self._todo.put((number, case))
        for _ in range(8):
            self._todo.put(None)

    def _send(self) -> None:
        with httpx.Client(base_url=self.url, timeout=10) as client:
            while (item := self._todo.get()) is not None:
                self._submit(client, *item)

    def _submit(self, client: httpx.Client, number: int, case: Case) -> None:
        headers = {"Idempotency-Key": f"chaos-{number}", "Content-Type": "image/png"}
        while True:
            begin = time.monotonic()
            try:
                answer = client.post("/predict/", content=case.image, headers=headers)
            except httpx.TransportError as error:
                self._refused(type(error).__name__, 0)
                time.sleep(0.2)
                continue
            took = time.monotonic() - begin
            with self._lock:
                if answer.status_code in (200, 201):
                    self.accepted[answer.json()["task_id"]] = case
                    self.accepted_at.append(time.monotonic())
                    return
            if answer.status_code != 503:
                self.unexpected.append(f"{answer.status_code} {answer.text[:200]}")
                return
            self._refused(answer.json()["code"], took)
            time.sleep(0.2)

    def _refused(self, reason: str, took: float) -> None:
        with self._lock:
            self.refusals[reason] = self.refusals.get(reason, 0) + 1
            self.slowest_refusal_seconds = max(self.slowest_refusal_seconds, took)
