"""Options that belong together: a dataclass as a parameter of a command stands for one option per field."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

__all__ = ["expanded"]


def expanded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer is to see it. Every field needs a default, or a dataclass as its type."""
    own = inspect.signature(command, eval_str=True).parameters
    hints = {name: parameter.annotation for name, parameter in own.items()}

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(**{name: _built(hints[name], given) if is_dataclass(hints[name]) else given[name] for name in own})

    shown = [
        option
        for name, parameter in own.items()
        for option in (
            _options(hints[name])
            if is_dataclass(hints[name])
            else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        )
    ]
    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {option.name: option.annotation for option in shown}
    return called


def _options(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if is_dataclass(hints[field.name]):
            yield from _options(hints[field.name])
        else:
            assert field.default is not MISSING
            kind = inspect.Parameter.KEYWORD_ONLY
            yield inspect.Parameter(field.name, kind, default=field.default, annotation=hints[field.name])


def _built(group: Any, given: dict[str, Any]) -> Any:
    hints = get_type_hints(group, include_extras=True)
    values = {
        field.name: _built(hints[field.name], given) if is_dataclass(hints[field.name]) else given[field.name]
        for field in fields(group)
    }
    return group(**values)
