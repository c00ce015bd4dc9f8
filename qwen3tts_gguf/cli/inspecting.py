"""`qwen3tts inspect`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import ModelFileError, OptionError
from .console import DEFAULT_MODELS, print_json, printable, stdout
from .panels import MODEL, OUTPUT, flag
from .wording import in_flags

__all__ = ["inspect"]


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="The model: a folder with one pair of files, one file, or nano.")
    ] = DEFAULT_MODELS,
    tensors: Annotated[
        bool, flag(OUTPUT, "List all facts and the type of every group of tensors.", "--tensors")
    ] = False,
    verify: Annotated[
        bool, flag(MODEL, "Read every tensor and compare its sha256 with the one from the conversion.", "--verify")
    ] = False,
    as_json: Annotated[bool, flag(OUTPUT, "Print all facts as JSON.", "--json")] = False,
) -> None:
    """Show a model's kind, voices, languages, types, size and origin.

    With --verify every tensor is read and its sha256 compared with the one that `qwen3tts convert` recorded. The exit
    code is 1 if one differs.

    Examples:

      qwen3tts inspect models
      qwen3tts inspect models --verify
    """
    from ..measure.inspection import inspect_model, verify_model
    from ..measure.summary import summary

    if verify and tensors:
        raise OptionError("--verify and --tensors print different lists: give one")
    if verify:
        _verify(verify_model(path), as_json)
    elif as_json:
        print_json(inspect_model(path))
    elif tensors:
        _print_tensors(inspect_model(path))
    else:
        _print_facts(None, {name: in_flags(words) for name, words in summary(path).items()})


def _print_facts(title: str | None, facts: dict[str, Any]) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        table.add_row(key, escape("\n".join(map(printable, text.split("\n")))))
    stdout.print(table)


def _print_tensors(report: dict[str, Any]) -> None:
    for file in report["files"]:
        _print_facts(escape(printable(file["path"])), file["facts"])
        tensors = Table("tensors", "type", "count", "MB", box=None, padding=(0, 2, 0, 0))
        for group in file["tensors"]:
            tensors.add_row(
                escape(printable(group["name"])), group["type"], str(group["count"]), f"{group['bytes'] / 1e6:.1f}"
            )
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
