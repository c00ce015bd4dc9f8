"""A model's default sampling settings from its file, checked against what the samplers support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

__all__ = ["GenerationDefaults"]


@dataclass(frozen=True)
class GenerationDefaults:
    """generation_config.json, or the official package's defaults. Raises ValueError for what cannot be followed."""

    do_sample: bool = True
    temperature: float = 0.9
    top_k: int = 50
    """0 keeps all, as below."""
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    subtalker_dosample: bool = True
    subtalker_temperature: float = 0.9
    subtalker_top_k: int = 50
    subtalker_top_p: float = 1.0
    max_new_tokens: int = 8192

    def __post_init__(self) -> None:
        for name in ("temperature", "subtalker_temperature", "repetition_penalty"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0, not {value}")
        for name in ("top_p", "subtalker_top_p"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {value}")
        for name, least in (("top_k", 0), ("subtalker_top_k", 0), ("max_new_tokens", 1)):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> GenerationDefaults:
        """Takes the fields it knows; each is of the field's type, or a whole number where that is a float."""
        defaults = vars(cls())
        known: dict[str, Any] = {name: _cast(name, defaults[name], values[name]) for name in defaults if name in values}
        return cls(**known)


def _cast(name: str, default: object, value: object) -> object:
    if type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) is int and abs(value) < 1 << 31:
        return float(value)
    raise ValueError(f"{name} is {value!r}, which is not of type {type(default).__name__}")
