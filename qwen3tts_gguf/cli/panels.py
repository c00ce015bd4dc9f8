"""How the help is laid out: options in panels by purpose, and paragraphs that wrap at the width of the terminal.

value("TEXT", VOICE, "The words spoken in the clip.", "--ref-text")    an option with a value
flag(MACHINE, "Load a model that seems too large.", "--force")         a switch
App()                                                                  a typer.Typer whose commands wrap well
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = [
    "MACHINE",
    "MODEL",
    "OUTPUT",
    "SAMPLING",
    "TABLE",
    "TEXT",
    "VOICE",
    "WORK",
    "App",
    "Command",
    "flag",
    "paragraphs",
    "value",
]

Function = TypeVar("Function", bound=Callable[..., Any])

MODEL = "Model"
VOICE = "Voice"
TEXT = "Text"
OUTPUT = "Output"
SAMPLING = "Sampling"
MACHINE = "Machine"
TABLE = "Table"
WORK = "Work"


def value(metavar: str, panel: str, help: str, *names: str, **settings: Any) -> Any:
    """An option with a value; `metavar` names the value in the help: FILE, NAME, N. `settings` are typer.Option's."""
    return typer.Option(*names, metavar=metavar, rich_help_panel=panel, help=help, **settings)


def flag(panel: str, help: str, *names: str) -> Any:
    """A switch that is off unless it is given."""
    return typer.Option(*names, rich_help_panel=panel, help=help, show_default=False)


def paragraphs(text: str | None) -> str:
    """A docstring with each paragraph on one line. Indented lines, which are examples, stay as they are."""
    blocks = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(block if block.startswith(" ") else " ".join(block.splitlines()) for block in blocks)


class Command(TyperCommand):
    """A command whose --help shows no type beside a switch or an argument."""

    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _without_types(super().get_params(ctx))


def _without_types(parameters: Any) -> Any:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None  # "<path>" in typer 0.29; not called by those before
    return parameters


class App(typer.Typer):
    """A typer.Typer whose commands take their help from docstrings by `paragraphs`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, no_args_is_help=True, **settings)

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **settings: Any
    ) -> Callable[[Function], Function]:
        def register(function: Function) -> Function:
            help = paragraphs(function.__doc__)
            return super(App, self).command(name, cls=cls or Command, help=help, **settings)(function)

        return register
