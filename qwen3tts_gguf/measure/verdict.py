"""What `verify` found, and whether it is near enough."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from statistics import fmean
from typing import Any

__all__ = ["Codebook", "Report", "Spoken", "Subject", "Thresholds"]


@dataclass(frozen=True)
class Subject:
    """Which model it was."""

    name: str
    files: tuple[str, str]
    """Talker and mmproj."""
    types: dict[str, list[str]]
    """Of the matrices of each part."""


@dataclass(frozen=True)
class Codebook:
    """One of the sixteen codes of a frame, over all frames; the talker generates the first, the code predictor the
    rest."""

    kl: float
    """Mean KL(reference || model) of the distributions, in nats at temperature 1."""
    top1: float
    """Share of frames in which both hold the same code likeliest."""
    top5: float
    """Share of frames in which the reference's likeliest is among the model's five likeliest."""


@dataclass(frozen=True)
class Spoken:
    """One text."""

    text: str
    frames: int
    """How many were forced: as many as the reference generated, or was allowed."""
    greedy_frames: int
    """Of the longer of the two greedy runs."""
    greedy_equal: float
    """Share of the codes of those frames that both models chose; beyond the end of the shorter run none are equal."""
    first_difference: int | None
    """The first frame, from 0, in which the greedy runs differ; None where they never do."""


@dataclass(frozen=True)
class Report:
    """What was found. Means are over all frames of all texts."""

    model: Subject
    against: Subject
    frames: int
    hidden_cosine: float
    """Mean over frames, of the talker's hidden state after its final norm."""
    hidden_cosine_min: float
    codebooks: tuple[Codebook, ...]
    """Sixteen."""
    snr_db: float
    """Of the codec on the reference's codes, over all samples; infinity where both decode identical samples."""
    max_error: float
    """The largest difference of two samples in [-1, 1]."""
    speaker_cosine: float | None
    """Of the vectors both speaker encoders make of one clip; None where a model has no speaker encoder."""
    texts: tuple[Spoken, ...]

    @property
    def predictor(self) -> Codebook:
        """The mean of codes 1..15."""
        rest = self.codebooks[1:]
        return Codebook(*(fmean(getattr(book, of) for book in rest) for of in ("kl", "top1", "top5")))

    @property
    def greedy_equal(self) -> float:
        """Share of equal codes over all greedy runs."""
        n_frames = sum(spoken.greedy_frames for spoken in self.texts)
        return sum(spoken.greedy_equal * spoken.greedy_frames for spoken in self.texts) / n_frames

    def as_dict(self) -> dict[str, Any]:
        """JSON's types only. Numbers it does not have become None: `snr_db` of identical samples is infinite."""
        return {
            "format": 1,
            **_plain(asdict(self)),
            "predictor": _plain(asdict(self.predictor)),
            "greedy_equal": self.greedy_equal,
        }


@dataclass(frozen=True)
class Thresholds:
    """What a model has to keep of the reference.

    The defaults lie between what Q8_0 and Q4_K_M kept of random weights of the 0.6B geometry (README); released weights
    may want others.
    """

    min_cosine: float = 0.99
    """Mean cosine of the talker's hidden state."""
    max_kl: float = 0.05
    """Mean KL of code 0, in nats."""
    min_top1: float = 0.9
    """Of code 0."""
    max_predictor_kl: float = 0.05
    """Mean of codes 1..15."""
    min_predictor_top1: float = 0.75
    """Mean of codes 1..15."""
    min_snr: float = 40.0
    """Of the codec, in dB."""
    min_speaker: float = 0.999
    """Cosine of the speaker vectors; holds where there are any."""
    min_greedy: float = 0.0
    """Share of equal codes of the greedy runs. 0 accepts any: runs that differ once stay different."""

    def failures(self, report: Report) -> list[str]:
        """A sentence for each threshold that is not kept; a value that is not a number keeps none."""
        first, rest = report.codebooks[0], report.predictor
        at_least = {
            "min_cosine": ("the cosine of the talker's hidden state", report.hidden_cosine),
            "min_top1": ("top-1 agreement of code 0", first.top1),
            "min_predictor_top1": ("top-1 agreement of codes 1..15", rest.top1),
            "min_snr": ("the codec's SNR in dB", report.snr_db),
            "min_speaker": ("the cosine of the speaker vectors", report.speaker_cosine),
            "min_greedy": ("the share of equal codes in greedy runs", report.greedy_equal),
        }
        at_most = {
            "max_kl": ("the KL of code 0", first.kl),
            "max_predictor_kl": ("the KL of codes 1..15", rest.kl),
        }
        low = [
            f"{what} is {value:.4g}, but must be at least {getattr(self, name):g} ({name})"
            for name, (what, value) in at_least.items()
            if value is not None and not value >= getattr(self, name)
        ]
        high = [
            f"{what} is {value:.4g}, but must be at most {getattr(self, name):g} ({name})"
            for name, (what, value) in at_most.items()
            if not value <= getattr(self, name)
        ]
        return low + high


def _plain(value: Any) -> Any:
    """Tuples as lists; None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
