"""A JSON object of the checkpoint, read key by key: what is missing or of the wrong kind is named with its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from qwen3tts_gguf.errors import CheckpointError

__all__ = ["Section"]

_MAX_NUMBER = 1 << 24  # no size or base of an honest configuration comes near


class Section:
    """One object of a configuration file; `where` is its file and the keys that lead to it."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self.values = values
        self.where = where

    @classmethod
    def read(cls, path: Path) -> Section:
        """The object a JSON file holds."""
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path}: no such file", hint="give the folder of a Qwen3-TTS checkpoint, the one with config.json"
            ) from error
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"{path}: not a JSON object")
        return cls(values, str(path))

    def error(self, key: str, complaint: str) -> CheckpointError:
        """An error about one key."""
        return CheckpointError(f"{self.where}: {key} {complaint}")

    def expect(self, key: str, wanted: object, why: str = "") -> None:
        """Raises CheckpointError if the key has another value than the only one that can be converted. A key that is
        missing or null has it by default."""
        value = self.values.get(key)
        if value is not None and value != wanted:
            raise self.error(
                key, f"is {_short(value)}, only {wanted!r} can be converted" + (f" ({why})" if why else "")
            )

    def section(self, key: str) -> Section:
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.error(key, f"is {_short(value)}, not an object")
        return Section(value, f"{self.where}: {key}")

    def rope(self) -> Section:
        """How positions are turned: `rope_parameters`, as transformers 5 saves it, `rope_theta` in it; before, this was
        `rope_scaling`, which may be missing or null, and a `rope_theta` next to it."""
        found = self.values.get("rope_parameters") or self.values.get("rope_scaling") or {}
        name = "rope_parameters" if self.values.get("rope_parameters") else "rope_scaling"
        if not isinstance(found, dict):
            raise self.error(name, f"is {_short(found)}, not an object")
        kinds = [value for value in found.values() if isinstance(value, dict)]
        if kinds and len(kinds) == len(found):  # one for each of `layer_types`
            if any(kind != kinds[0] for kind in kinds):
                raise self.error(name, f"is {_short(found)}, only layers that are all the same can be converted")
            found = kinds[0]
        theta = {key: self.values[key] for key in ("rope_theta",) if key in self.values}
        return Section({**theta, **found}, f"{self.where}: {name}")

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self.error(key, f"is {_short(value)}, not a string")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer."""
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MAX_NUMBER:
            raise self.error(key, f"is {_short(value)}, not a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < _MAX_NUMBER:
            raise self.error(key, f"is {_short(value)}, not a positive number")
        return float(value)

    def integers(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of positive integers."""
        value = self._get(key, default)
        if not isinstance(value, (list, tuple)) or not all(
            type(item) is int and 0 < item < _MAX_NUMBER for item in value
        ):
            raise self.error(key, f"is {_short(value)}, not a list of positive integers")
        return tuple(value)

    def ids(self, key: str) -> dict[str, int]:
        """An object of names and token ids; missing or null is empty."""
        value = self.values.get(key) or {}
        if not isinstance(value, dict) or not all(type(item) is int and item >= 0 for item in value.values()):
            raise self.error(key, f"is {_short(value)}, not an object of token ids")
        return value

    def objects(self, key: str) -> list[Section]:
        """A list of objects."""
        value = self._get(key)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(key, "is not a list of objects")
        return [Section(item, f"{self.where}: {key}[{i}]") for i, item in enumerate(value)]

    def _get(self, key: str, default: object = None) -> object:
        value = self.values.get(key)
        if value is None and default is None:
            raise self.error(key, "is missing")
        return default if value is None else value


def _short(value: object) -> str:
    """For a message of one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
