"""`qwen3tts inspect`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .console import DEFAULT_MODELS, stdout

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(help="A .gguf of either half, or a folder of one pair.")] = DEFAULT_MODELS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what a model is: kind, languages, speakers, geometry, origin, and the type of every group of tensors."""
    from ..inspection import inspect_model

    report = inspect_model(path)
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    for file in report["files"]:
        facts = Table(
            title=escape(file["path"]), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0)
        )
        for key, value in file["facts"].items():
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            facts.add_row(key, escape(text))
        stdout.print(facts)
        tensors = Table("tensors", "type", "count", "MB", box=None, padding=(0, 2, 0, 0))
        for group in file["tensors"]:
            tensors.add_row(group["name"], group["type"], str(group["count"]), f"{group['bytes'] / 1e6:.1f}")
        stdout.print(tensors)
        stdout.print()
