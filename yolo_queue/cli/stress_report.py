"""Makes the report of a stress run, and writes it as JSON and HTML."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolo_queue.cli.stress_account import latencies, per_second, reconcile
from yolo_queue.cli.stress_load import Load, Plan
from yolo_queue.cli.stress_summary import save_html


def report(load: Load, plan: Plan, run: dict[str, Any]) -> dict[str, Any]:
    """All that is known about a run. `run` describes it; times are seconds since it began."""
    shots = load.shots
    ends = [shot.ended for shot in shots if shot.ended is not None]
    completed = [s.ended for s in shots if s.state == "completed" and s.ended is not None]
    length = max(
        [shot.started for shot in shots] + ends + [s.accepted for s in shots if s.accepted],
        default=0.0,
    )
    return {
        "run": {**run, **asdict(plan)},
        "account": reconcile(shots),
        "duration_seconds": round(length, 3),
        "sent_bytes": sum(shot.bytes for shot in shots if shot.accepted is not None),
        "throughput_per_second": round(len(completed) / length, 3) if length else 0.0,
        "deepest_queue": max((sample.depth for sample in load.samples), default=0),
        "latency_seconds": _rounded(latencies(shots)),
        "accepted_per_second": per_second(
            [shot.accepted for shot in shots if shot.accepted is not None], length
        ),
        "completed_per_second": per_second(completed, length),
        "queue_samples": [_rounded(asdict(sample)) for sample in load.samples],
        "images": [_rounded(asdict(shot)) for shot in shots],
    }


def write(data: dict[str, Any], out: Path) -> list[Path]:
    """Write `out`.json and `out`.html; `out` may have either suffix. Raises OSError."""
    if out.suffix in (".json", ".html"):
        out = out.with_suffix("")
    out.parent.mkdir(parents=True, exist_ok=True)
    paths = [out.with_name(out.name + suffix) for suffix in (".json", ".html")]
    paths[0].write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    save_html(data, paths[1])
    return paths


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value
