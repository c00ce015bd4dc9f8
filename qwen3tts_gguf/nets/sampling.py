"""How the next code is chosen: the official sampler, in the official order.

repetition penalty -> minimum length -> suppressed tokens -> temperature -> top-k -> top-p -> draw

(transformers' `GenerationMixin._get_logits_processor`, called by `generate` in modeling_qwen3_tts.py). The penalty
counts what the talker has generated, not the prompt; it holds in greedy decoding too. The code predictor samples inside
its graph (nets/graph_sampler.py), with settings of its own. Wherever logits are equal, the lower token comes first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sampling", "TalkerSampler", "next_seed"]

MIN_NEW_TOKENS = 2
"""End of speech cannot be the first or second token (official `generate`)."""


@dataclass(frozen=True)
class Sampling:
    """Settings of one of the two samplers. `draws=False` is greedy: the rest but the penalty is then without effect."""

    draws: bool = True
    temperature: float = 0.9
    top_k: int = 50
    """0 keeps all."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0


class TalkerSampler:
    """Chooses code 0 of each frame, or end of speech, for one utterance."""

    def __init__(
        self, sampling: Sampling, rng: np.random.Generator, *, end_of_speech: int, suppressed: Collection[int]
    ) -> None:
        self._sampling, self._rng, self._end = sampling, rng, end_of_speech
        self._suppressed = np.array(sorted(suppressed), np.intp)
        self._n_generated = 0
        self._generated: NDArray[np.bool_] | None = None

    def choose(self, logits: NDArray[np.float32]) -> int:
        """logits [codec vocabulary] -> token"""
        scores = logits.astype(np.float32, copy=True)
        if self._generated is None:
            self._generated = np.zeros(scores.shape, np.bool_)
        earlier, penalty = scores[self._generated], self._sampling.repetition_penalty
        scores[self._generated] = np.where(earlier < 0, earlier * penalty, earlier / penalty)
        if self._n_generated < MIN_NEW_TOKENS:
            scores[self._end] = -np.inf
        scores[self._suppressed] = -np.inf
        token = draw(scores, self._sampling, self._rng) if self._sampling.draws else int(np.argmax(scores))
        self._generated[token] = True
        self._n_generated += 1
        return token

    def never_end(self) -> None:
        """Suppress end of speech: for measuring a given number of frames."""
        self._suppressed = np.append(self._suppressed, self._end)


def next_seed(seed: int) -> int:
    """The seed of the attempt after the one with this seed: another, but always the same one."""
    return int(np.random.SeedSequence(seed).spawn(1)[0].generate_state(1)[0])


def draw(scores: NDArray[np.float32], sampling: Sampling, rng: np.random.Generator) -> int:
    """One token from softmax(scores / temperature), cut to the top_k likeliest, then to the top_p nucleus of those.

    scores: [vocabulary], no NaN.
    """
    k = min(sampling.top_k or scores.size, scores.size)
    kept = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    kept = kept[np.argsort(-scores[kept], kind="stable")][:k]  # likeliest first, the lower of equal tokens first
    scaled = scores[kept].astype(np.float64) / sampling.temperature
    p = np.exp(scaled - scaled[0])
    p /= p.sum()
    p = p[np.cumsum(p) - p < sampling.top_p]
    threshold = rng.random() * p.sum()
    return int(kept[min(np.searchsorted(np.cumsum(p), threshold, side="right"), p.size - 1)])
