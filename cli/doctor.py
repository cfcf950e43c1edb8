"""Owns `yolo-queue doctor`: what stands in the way of jobs, and what to do about it."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.doctor_checks import Finding, check_environment, check_redis, check_service
from cli.service_options import DEFAULT_URL, FAILED, USAGE, ApiKey, Url
from shared.errors import InvalidSettings
from shared.settings import load_settings


def doctor(url: Url = DEFAULT_URL, api_key: ApiKey = "") -> None:
    """Check this machine, Redis and the service; say what to do for each problem.

    \b
    Examples:
      yolo-queue doctor
      REDIS_URL=redis://db:6379/0 yolo-queue doctor --url http://gateway:8000

    Redis is the one of the settings (REDIS_URL), the service the one of --url. Exit status: 0 all
    is well, 1 something is wrong, 2 the settings themselves are.
    """
    try:
        settings = load_settings()
    except InvalidSettings as error:
        typer.secho(error.message, fg="red", err=True)
        raise typer.Exit(USAGE) from None
    findings = [*check_environment(), *check_redis(settings), *check_service(url, api_key)]
    Console().print(_table(findings))
    problems = sum(not finding.ok for finding in findings)
    typer.echo(f"{problems} problems." if problems else "All is well.")
    if problems:
        raise typer.Exit(FAILED)


def _table(findings: list[Finding]) -> Table:
    table = Table("check", "", "what was found", box=None, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]problem[/red]"
        text = escape(finding.found)
        if finding.advice and not finding.ok:
            text += f"\n[bold]{escape(finding.advice)}[/bold]"
        table.add_row(finding.name, mark, text)
    return table
