"""TEXT on the command line: it may start with a dash, and comes from stdin for `-`."""

from __future__ import annotations

import re
import sys
from typing import Any

import typer

from .console import decoded
from .panels import Command

__all__ = ["DASH_HINT", "QUOTES_HINT", "TextCommand", "UsageError", "read_stdin"]

DASH_HINT = 'a text that starts with a dash comes last, after --, or on stdin: qwen3tts speak -o out.wav -- "-text"'
QUOTES_HINT = 'a text of several words goes in quotes: qwen3tts speak "Good morning."'
UsageError: Any = typer.BadParameter.__base__  # click's, or that of the click which newer typers bring along
# An option or a misspelled one: letters and dashes without a space, and perhaps a value.
_OPTION = re.compile(r"--[A-Za-z][\w-]*(=.*)?|-[A-Za-z]\w*", re.DOTALL)


class TextCommand(Command):
    """A command that takes "-5 degrees" and "- Hello" for text, as no option looks like that."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._texts_last(args))

    def _texts_last(self, args: list[str]) -> list[str]:
        """The same arguments, with a text that starts with a dash after a `--`."""
        with_value = {
            name
            for parameter in self.params
            if parameter.param_type_name == "option" and not getattr(parameter, "is_flag", False)
            for name in parameter.opts
        }
        short = tuple(name for name in with_value if not name.startswith("--"))
        rest: list[str] = []
        texts: list[str] = []
        given = iter(args)
        for argument in given:
            if argument == "--":
                texts += given
            elif argument in with_value:
                rest += [argument, *[value for value in [next(given, None)] if value is not None]]
            elif argument[:1] == "-" != argument and not (argument.startswith(short) or _OPTION.fullmatch(argument)):
                texts.append(argument)
            else:
                rest.append(argument)
        return [*rest, "--", *texts] if texts else rest


def read_stdin() -> str:
    """All of stdin. Raises TextError."""
    return decoded(sys.stdin.buffer.read(), "the text on stdin")
