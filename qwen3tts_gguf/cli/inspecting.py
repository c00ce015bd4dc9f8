"""`qwen3tts inspect`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import ModelFileError
from .console import DEFAULT_MODELS, print_json, printable, stdout

__all__ = ["inspect"]


def inspect(
    path: Annotated[Path, typer.Argument(help="A .gguf of either half, or a folder of one pair.")] = DEFAULT_MODELS,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every tensor: is it what was converted, and a number?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what a model is: kind, languages, speakers, geometry, origin, and the type of every group of tensors.

    With --verify the sha256 of every group is computed again and held against what qwen3tts convert recorded; the exit
    code is 1 unless all are sound.
    """
    from ..measure.inspection import inspect_model, verify_model

    if verify:
        _verify(verify_model(path), as_json)
        return
    report = inspect_model(path)
    if as_json:
        print_json(report)
        return
    for file in report["files"]:
        facts = Table(
            title=escape(file["path"]), title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0)
        )
        for key, value in file["facts"].items():
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            facts.add_row(key, escape(printable(text)))
        stdout.print(facts)
        tensors = Table("tensors", "type", "count", "MB", box=None, padding=(0, 2, 0, 0))
        for group in file["tensors"]:
            tensors.add_row(group["name"], group["type"], str(group["count"]), f"{group['bytes'] / 1e6:.1f}")
        stdout.print(tensors)
        stdout.print()


def _verify(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        for file in report["files"]:
            groups = Table(title=escape(file["path"]), title_justify="left", box=None, padding=(0, 2, 0, 0))
            for column in ("group", "tensors", "sha256", "verdict"):
                groups.add_column(column, overflow="fold")
            for group in file["groups"]:
                groups.add_row(group["name"], str(group["n_tensors"]), group["sha256"][:16], escape(group["verdict"]))
            stdout.print(groups)
            stdout.print()
    if report["problems"]:
        raise ModelFileError("; ".join(report["problems"]))
