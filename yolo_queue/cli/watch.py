"""`yolo-queue watch`: shows the queue live in the terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from yolo_queue import ApiError, Client, NotAuthenticated, QueueState
from yolo_queue.cli.service_options import DEFAULT_URL, ApiKey, Url, unusable

HISTORY = 60
_BARS = " ▁▂▃▄▅▆▇█"


def watch(
    once: Annotated[bool, typer.Option("--once", help="Print the state once and exit.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between updates.")] = 1.0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Show the queue live: waiting and running jobs, and workers. Ctrl-C ends it.

    \b
    Examples:
      yolo-queue watch
      yolo-queue watch --once                     once, for scripts
      yolo-queue watch --url http://gpu-box:8000

    Exit status 2 if the service does not answer at the start. If it stops
    answering later, the error is shown until it answers again.
    """
    depths: deque[int] = deque(maxlen=HISTORY)
    try:
        with Client(url, api_key or None, retry_seconds=0) as client:
            state = client.queue()
            if once:
                Console().print(view(state, depths, url))
                return
            with Live(console=Console(), refresh_per_second=4) as live:
                while True:
                    try:
                        state = client.queue()
                        depths.append(state.depth)
                        live.update(view(state, depths, url))
                    except NotAuthenticated:
                        raise
                    except ApiError as error:
                        live.update(Text(f"no answer: {error}", style="red"))
                    time.sleep(interval)
    except (ApiError, ValueError) as error:
        raise unusable(error, url) from None
    except KeyboardInterrupt:
        return


def view(state: QueueState, depths: deque[int], url: str) -> RenderableType:
    """One state of the queue, with the depths before it."""
    rate = "unknown" if state.drain_rate is None else f"{state.drain_rate:.1f} jobs/s"
    facts = Table.grid(padding=(0, 3))
    facts.add_row(f"[bold]{escape(url)}[/bold]", "", "", "")
    facts.add_row(
        f"waiting [bold]{state.depth}[/bold]",
        f"in flight [bold]{state.in_flight}[/bold]",
        f"oldest [bold]{state.oldest_age_seconds:.1f} s[/bold]",
        f"rate [bold]{rate}[/bold]",
    )
    facts.add_row(
        f"ready processes {_coloured(state.ready_processes, bad=state.ready_processes == 0)}",
        f"dead letters {_coloured(state.dead_letters, bad=state.dead_letters > 0)}",
        "" if state.finished_total is None else f"finished {state.finished_total}",
        "",
    )
    models = Table("model", "waiting", "in flight", "oldest", "ready", "rate")
    for model in state.models:
        rate = "unknown" if model.drain_rate is None else f"{model.drain_rate:.1f} jobs/s"
        models.add_row(
            escape(model.model),
            str(model.depth),
            str(model.in_flight),
            f"{model.oldest_age_seconds:.1f} s",
            _coloured(model.ready_processes, bad=model.ready_processes == 0),
            rate,
        )
    workers = Table("worker", "models", "processes", "ready", "running")
    for worker in state.workers:
        workers.add_row(
            escape(worker.name),
            escape(", ".join(worker.models)),
            str(worker.processes),
            _coloured(worker.ready, bad=worker.ready < worker.processes),
            str(worker.running),
        )
    if not state.workers:
        workers.add_row("[red]no worker[/red]", "", "", "", "")
    parts: list[RenderableType] = [facts, workers]
    if len(state.models) > 1:
        parts.insert(1, models)
    if len(depths) > 1:
        parts.insert(1, Text("waiting " + sparkline(depths), style="cyan"))
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """One bar a value; the highest value has a full bar."""
    top = max(values) or 1
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)


def _coloured(number: int, *, bad: bool) -> str:
    return f"[bold {'red' if bad else 'green'}]{number}[/]"
