"""How background tasks are ended and restarted."""

from __future__ import annotations

import asyncio

import pytest

from api import background


def test_a_swallowed_cancellation_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RECANCEL_SECONDS", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 1:
                    raise

    async def run() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(background.end_tasks([task]), timeout=5)
        assert task.cancelled()

    asyncio.run(run())
    assert swallowed == 2


def test_a_task_that_fails_is_seen_and_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "RESTART_SECONDS", 0.01)
    begun = 0

    async def run() -> None:
        tasks = background.BackgroundTasks()
        again, seen_down = asyncio.Event(), []

        async def fragile() -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                raise ValueError("a state that is not known")
            if begun == 2:
                return
            again.set()
            await asyncio.sleep(60)

        async def watch() -> None:
            while not again.is_set():
                if not tasks.up["fragile"]:
                    seen_down.append(True)
                await asyncio.sleep(0)

        tasks.run("fragile", fragile)
        await asyncio.wait_for(watch(), timeout=5)
        assert seen_down
        assert tasks.up == {"fragile": True}
        assert tasks.failures["fragile"] == 2
        await tasks.stop()

    asyncio.run(run())
    assert "a state that is not known" in caplog.text
