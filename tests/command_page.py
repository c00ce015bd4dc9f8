"""docs/commands.md: the help of every command as one page. `just help` writes it, tests/test_help.py compares it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from qwen3tts_gguf.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
_OF_TYPER = ("help", "install_completion", "show_completion")  # its words differ between versions
_START = """\
# Commands

Every command with its arguments and options, as `--help` prints them. `just help` makes this page from the source.
`qwen3tts --install-completion` teaches your shell to complete commands, options and the names of voices.
"""


def commands(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, by the words that call it."""
    yield name, command
    for child in getattr(command, "commands", {}).values():
        yield from commands(child, (*name, child.name))


def page() -> str:
    return "\n".join([_START, *(_section(name, command) for name, command in commands(typer.main.get_command(app)))])


def _section(name: tuple[str, ...], command: Any) -> str:
    lines = [f"## {' '.join(('qwen3tts', *name))}", ""]
    for paragraph in (command.help or "").replace("\\[", "[").split("\n\n"):
        lines += (
            ["```console", *map(str.strip, paragraph.splitlines()), "```", ""]
            if paragraph[:1] == " "
            else [paragraph, ""]
        )
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.name not in _OF_TYPER:
            title = "Arguments" if parameter.param_type_name == "argument" else parameter.rich_help_panel or "Options"
            panels.setdefault(title, []).append(parameter)
    for panel, parameters in panels.items():
        lines += [f"| {panel} | |", "|---|---|", *map(_row, parameters), ""]
    return "\n".join(lines)


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    names = parameter.metavar if is_argument else " ".join([", ".join(parameter.opts), parameter.metavar or ""])
    help = [parameter.help.replace("\\[", "[")]
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    if parameter.required:
        help.append("Required.")
    elif parameter.show_default and default not in (None, "", False) and not callable(default):
        help.append(f"Default: {default}.")
    if parameter.envvar:
        help.append(f"Also set by {parameter.envvar}.")
    escaped = "\\|"  # in a table, also within code
    cells = f"`{names.strip()}`", " ".join(help)
    return f"| {' | '.join(cell.replace('|', escaped) for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
