"""A command of ours beside Celery's: `celery -A worker.app control drain_model NAME VERSION`."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from shared.job.keys import Keys


@control_command(args=[("model", str), ("version", str)], signature="NAME VERSION")
def drain_model(state: Any, model: str, version: str) -> dict[str, str]:
    """Take no more jobs of a model, if it is served here in this version (its first digits)."""
    from worker.process.parent import parent  # not for a command line, which only names it

    served = parent().models.get(model)
    if served is None or not version or not served.version.startswith(version):
        return {"ok": f"not served here: {model} {version}"}
    # Messages may reach it all the same: an inline task, or one that was asked for just before.
    parent().memory.drain([*parent().models].index(model))
    for queue in Keys(state.app.settings.yolo_queue).lane_queues(model):
        state.consumer.cancel_task_queue(queue)
    return {"ok": f"takes no more jobs of {model} {version}"}
