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
        float | None, value("X", SAMPLING, "Talker temperature. Default: from the model.", "--temperature")
    ] = None
    top_k: Annotated[
        int | None, value("N", SAMPLING, "Talker top-k; 0 is off. Default: from the model.", "--top-k")
    ] = None
    top_p: Annotated[
        float | None, value("X", SAMPLING, "Talker top-p; 1 is off. Default: from the model.", "--top-p")
    ] = None
    repetition_penalty: Annotated[
        float | None,
        value("X", SAMPLING, "Talker repetition penalty; 1 is off. Default: from the model.", "--repetition-penalty"),
    ] = None
    sub_temperature: Annotated[
        float | None, value("X", SAMPLING, "Code predictor temperature. Default: from the model.", "--sub-temperature")
    ] = None
    sub_top_k: Annotated[
        int | None, value("N", SAMPLING, "Code predictor top-k; 0 is off. Default: from the model.", "--sub-top-k")
    ] = None
    sub_top_p: Annotated[
        float | None, value("X", SAMPLING, "Code predictor top-p; 1 is off. Default: from the model.", "--sub-top-p")
    ] = None
    sub_repetition_penalty: Annotated[
        float | None,
        value("X", SAMPLING, "Code predictor repetition penalty; 1, the default, is off.", "--sub-repetition-penalty"),
    ] = None
