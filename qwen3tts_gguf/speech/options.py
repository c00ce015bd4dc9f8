"""How to speak: what a user may choose for each utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from ..errors import OptionError
from ..model.sampling_defaults import GenerationDefaults
from ..nets.sampling import Sampling

__all__ = ["Layout", "SpeechOptions"]

Layout = Literal["whole", "stepwise"]
"""Whether the talker gets all text before the first frame, or one token per frame."""
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class SpeechOptions:
    """How to speak. None stands for the model's own default (`TTS.defaults`)."""

    language: str | None = None
    """A name, ISO code or locale the model knows, or "auto"; None: the voice's own, else auto."""
    seed: int | None = None
    """Seed of all random choices; None draws one, which `Utterance.seed` returns."""
    greedy: bool = False
    """Take the likeliest code each time, in talker and predictor."""
    max_frames: int | None = None
    """80 ms each, the budget: speech that needs more has failed. None: `frame_budget` of the text (runaway.py)."""
    retries: int = 2
    """How often `TTS.speak` retries with a new seed, made from the last one, when the model does not end the speech."""
    layout: Layout = "whole"
    """"whole" gives the talker all text first, "stepwise" a token per frame."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    sub_temperature: float | None = None
    """The code predictor's, as the three below."""
    sub_top_k: int | None = None
    sub_top_p: float | None = None
    sub_repetition_penalty: float | None = None
    live_in_context: bool = False
    """Of a text that is still arriving, in the voice of a clip: clone in context, which needs 45 to 95 tokens before
    the first sound, not the speaker vector alone, which needs four."""
    endless: bool = False
    """Suppress the end of speech and every stop but `max_frames`: for measuring a given number of frames."""

    def __post_init__(self) -> None:
        for name in ("temperature", "sub_temperature", "repetition_penalty", "sub_repetition_penalty"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                hint = "for the likeliest code each time use `greedy`" if "temperature" in name else ""
                raise OptionError(f"`{name}` must be above 0, not {value}", hint=hint)
        for name in ("top_p", "sub_top_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise OptionError(f"`{name}` must be above 0 and at most 1, not {value}")
        for name in ("top_k", "sub_top_k", "seed", "retries"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise OptionError(f"`{name}` must not be negative, not {value}")
        if self.layout not in get_args(Layout):
            raise OptionError(f"`layout` must be one of {', '.join(get_args(Layout))}, not {self.layout}")
        if self.max_frames is not None and self.max_frames < 1:
            raise OptionError(f"`max_frames` must be at least 1, not {self.max_frames}")

    def sampling(self, defaults: GenerationDefaults) -> tuple[Sampling, Sampling]:
        """How the talker and the code predictor sample: as these options ask, otherwise as the file's defaults do."""
        talker = Sampling(
            draws=defaults.do_sample and not self.greedy,
            temperature=_first(self.temperature, defaults.temperature),
            top_k=_first(self.top_k, defaults.top_k),
            top_p=_first(self.top_p, defaults.top_p),
            repetition_penalty=_first(self.repetition_penalty, defaults.repetition_penalty),
        )
        predictor = Sampling(
            draws=defaults.subtalker_dosample and not self.greedy,
            temperature=_first(self.sub_temperature, defaults.subtalker_temperature),
            top_k=_first(self.sub_top_k, defaults.subtalker_top_k),
            top_p=_first(self.sub_top_p, defaults.subtalker_top_p),
            repetition_penalty=_first(self.sub_repetition_penalty, 1.0),
        )
        return talker, predictor


def _first(wish: Number | None, default: Number) -> Number:
    return default if wish is None else wish
