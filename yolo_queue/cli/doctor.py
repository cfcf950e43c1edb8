"""`yolo-queue doctor`: finds out why jobs are not done, and says what to do about it."""

from __future__ import annotations

from importlib.util import find_spec

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yolo_queue.cli.doctor_checks import Finding, check_environment, check_service
from yolo_queue.cli.service_options import DEFAULT_URL, FAILED, ApiKey, Url, fail


def doctor(url: Url = DEFAULT_URL, api_key: ApiKey = "") -> None:
    """Check this machine, Redis and the service; say what to do about problems.

    \b
    Examples:
      yolo-queue doctor
      REDIS_URL=redis://db:6379/0 yolo-queue doctor --url http://gateway:8000

    The service is the one at --url. Redis is the one at REDIS_URL; checking it
    needs a checkout of the server.

    Exit status: 0 all is well, 1 there are problems, 2 the settings are wrong.
    """
    findings = [*check_environment(), *_check_redis(), *check_service(url, api_key)]
    Console().print(_table(findings))
    problems = sum(not finding.ok for finding in findings)
    typer.echo(f"Problems: {problems}." if problems else "All is well.")
    if problems:
        raise typer.Exit(FAILED)


def _check_redis() -> list[Finding]:
    if find_spec("yolo_queue.server") is None:
        typer.echo("Redis is not checked: that needs a checkout of the server.")
        return []
    from yolo_queue.server import doctor_redis

    try:
        return list(doctor_redis.check_redis())
    except doctor_redis.InvalidSettings as error:
        raise fail(error.message) from None


def _table(findings: list[Finding]) -> Table:
    table = Table("check", "", "what was found", box=None, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]problem[/red]"
        text = escape(finding.found)
        if not finding.ok:
            text += f"\n[bold]{escape(finding.advice)}[/bold]"
        table.add_row(finding.name, mark, text)
    return table
