"""What `qwen3tts batch` prints: how far a batch is, and what one will take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from .console import printable, stdout
from .reporting import hand_out, picture

__all__ = ["print_estimate", "print_status"]

_FAILED_SHOWN = 20


def print_status(place: str, json_file: Path | None, plot: Path | None) -> None:
    """Raises OptionError."""
    from ..batch.estimate import status
    from ..batch.project import Project

    found = status(Project.open(place))

    def print_tables() -> None:
        lines = {
            "rows": f"{found.done} of {found.rows} done",
            "failed": str(found.failed),
            "shards": f"{found.shards_done} of {found.shards} done",
            "speech": _time(found.seconds),
            "speed": "not known yet" if found.speed is None else f"{found.speed:.2f} s of speech per second",
            "time left": "not known yet" if found.seconds_left is None else _time(found.seconds_left),
        }
        stdout.print(_table(lines))
        if found.failed_rows:
            table = Table("id", "error", box=None)
            for row in found.failed_rows[:_FAILED_SHOWN]:
                table.add_row(printable(row["id"]), printable(row["error"]))
            stdout.print(table, markup=False)

    hand_out(asdict(found), json_file, print_tables)
    if plot is not None:
        with picture(plot, inches=(6, 3)) as figure:
            axes = figure.add_subplot()
            axes.bar([*found.durations], [*found.durations.values()], width=0.5, align="edge")
            axes.set(xlabel="seconds of speech", ylabel="rows")


def print_estimate(found: dict[str, Any], json_file: Path | None) -> None:
    """From `batch.estimate`. Raises OptionError."""
    lines = {
        "rows": str(found["rows"]),
        "sample": f"{found['sample_rows']} rows, {found['sample_failed']} of them failed",
        "speech": _time(found["speech_seconds"]),
        "size": f"{found['bytes'] / 1e9:.3f} GB",
        "time": f"{_time(found['work_seconds'])} with one process like this one",
        "speed": f"{found['speed']:.2f} s of speech per second",
    }
    hand_out(found, json_file, lambda: stdout.print(_table(lines)))


def _table(lines: dict[str, str]) -> Table:
    table = Table(show_header=False, box=None)
    for name, value in lines.items():
        table.add_row(name, value)
    return table


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
