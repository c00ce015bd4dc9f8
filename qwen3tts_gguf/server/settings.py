"""What the server is started with: the options of `qwen3tts serve`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..errors import OptionError

__all__ = ["MIB", "Settings"]

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """The server's limits and permissions. Raises OptionError for values that cannot work."""

    voices: Path
    """The folder of saved voices; it need not exist."""
    n_lanes: int | Literal["auto"] = "auto"
    """Speeches that are made at once; "auto" follows what the model and the machine turn out to do."""
    n_queue: int = 16
    """Requests that may wait for a lane; the next one is refused with 429."""
    max_input: int = 4096
    """Letters of one request's text."""
    max_body: int = 16 * MIB
    """Bytes of one request's body, counted before anything is parsed."""
    max_clip: int = 10 * MIB
    """Bytes of a reference clip, decoded from base64."""
    max_voices: int = 1000
    """Saved voices, beyond which uploads are refused."""
    uploads: bool = True
    """Whether voices may be uploaded and deleted."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Voice names that stand for other voices, in front of every other rule."""
    api_keys: tuple[str, ...] = ()
    """Any of them opens what is not public; none: everything is open."""
    cors_origins: tuple[str, ...] = ()
    """Web pages of other origins that may use the server; "*" lets all."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the Host header that are answered; empty: all of them."""
    strict_model: bool = False
    """Refuse a model's name that is not the loaded one's."""
    idle_unload: float | None = None
    """Seconds without a request after which the model leaves memory; None: never."""
    stall_timeout: float = 60.0
    """Seconds that a client may leave its stream unread before it is cut off."""

    def __post_init__(self) -> None:
        if self.n_lanes != "auto" and self.n_lanes < 1:
            raise OptionError(f'`n_lanes` must be at least 1, or "auto", not {self.n_lanes}')
        for name in ("n_queue", "max_voices"):
            if getattr(self, name) < 0:
                raise OptionError(f"`{name}` must not be negative, not {getattr(self, name)}")
        if not 1 <= self.max_input <= MIB:
            raise OptionError(f"`max_input` must be 1 to {MIB}, not {self.max_input}")
        if self.idle_unload is not None and not 0 < self.idle_unload < float("inf"):
            raise OptionError(f"`idle_unload` must be above 0, not {self.idle_unload}")
        if any(not key.isascii() or not key.strip() for key in self.api_keys):
            raise OptionError("an API key must be printable ASCII and not empty")
