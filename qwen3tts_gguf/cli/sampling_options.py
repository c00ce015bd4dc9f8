"""How talker and code predictor sample, as options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from .panels import SAMPLING, value

__all__ = ["SamplingOptions"]


@dataclass(frozen=True)
class SamplingOptions:
    """Fields of `SpeechOptions`."""

    temperature: Annotated[
        float | None,
        value("X", SAMPLING, "Temperature of the talker. Default: from the model.", "--temperature"),
    ] = None
    top_k: Annotated[
        int | None,
        value("N", SAMPLING, "Candidates the talker chooses from; 0: all. Default: from the model.", "--top-k"),
    ] = None
    top_p: Annotated[
        float | None,
        value(
            "X", SAMPLING, "Probability the talker's candidates add up to; 1: all. Default: from the model.", "--top-p"
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        value(
            "X", SAMPLING, "Penalty for codes used before; 1: none. Default: from the model.", "--repetition-penalty"
        ),
    ] = None
    sub_temperature: Annotated[
        float | None,
        value("X", SAMPLING, "Temperature of the code predictor. Default: from the model.", "--sub-temperature"),
    ] = None
    sub_top_k: Annotated[
        int | None,
        value("N", SAMPLING, "Candidates of the code predictor; 0: all. Default: from the model.", "--sub-top-k"),
    ] = None
    sub_top_p: Annotated[
        float | None,
        value(
            "X", SAMPLING, "Probability of the predictor's candidates; 1: all. Default: from the model.", "--sub-top-p"
        ),
    ] = None
    sub_repetition_penalty: Annotated[
        float | None,
        value(
            "X",
            SAMPLING,
            "Repetition penalty of the code predictor. Default: 1, which is none.",
            "--sub-repetition-penalty",
        ),
    ] = None
