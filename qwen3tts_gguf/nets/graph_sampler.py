"""Sampling inside a graph: logits of several lanes in, one code per lane out, each by its own settings.

    logits [lanes, codebook_size]
      -> repetition penalty (codes of this frame) -> the most likely, in order -> temperature -> top-k -> top-p -> draw
      -> codes [lanes]

The official order (nets/sampling.py). All settings are inputs, so that one graph serves any mixture of them: a lane
that has no nucleus gets a limit that no probability reaches, greedy decoding is top-k of 1 without noise, and a penalty
of 1 changes a logit by 0. A draw from softmax(logits / T) is the argmax of logits + T * Gumbel noise.

Equal logits: the lower token comes first. ggml's sorts promise no order among equals, and its top_k may choose any of
them at the cut: of [5, 5, 5, 6, 6] the top 3 are tokens 4, 3 and 1 (libstdc++). So the sorted *values*, which do not
depend on the order among equals, only give the number of candidates that stay, and the value of the last one. Which
tokens they are is found by keys that are never equal: above the last value, equal to it, or below it, and then by
token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ggml.device import Tensor
from ..ggml.graph import Graph
from .sampling import Sampling

__all__ = ["CANDIDATES", "GraphSampler", "n_candidates"]

CANDIDATES = 64
"""The official top-k is 50."""
_LARGEST = 1e30
_NO_LIMIT = 2.0  # of a sum of probabilities


def n_candidates(sampling: Sampling, codebook_size: int) -> int:
    """How many tokens a lane's graph sorts: a function of its own settings only, whatever other lanes need."""
    return min(CANDIDATES, codebook_size) if _kept(sampling, codebook_size) <= CANDIDATES else codebook_size


def _kept(sampling: Sampling, codebook_size: int) -> int:
    """How many candidates top-k leaves a lane."""
    return min(sampling.top_k or codebook_size, codebook_size) if sampling.draws else 1


class GraphSampler:
    """The inputs and nodes that choose `n_steps` codes for each lane, one after another."""

    def __init__(self, g: Graph, n_lanes: int, n_steps: int, codebook_size: int, candidates: int) -> None:
        self._g, self._n_lanes, self._size, self._k = g, n_lanes, codebook_size, candidates
        self._noise = g.input(n_steps, n_lanes, candidates)
        self._inverse_temperature = g.input(n_lanes, 1)
        self._top_k = g.input(n_lanes, candidates)  # by rank: 0, or -inf from top_k on
        self._top_p = g.input(n_lanes, candidates)  # by rank: top_p, or -1 from top_k on
        self._penalties = [g.input(n_lanes, 1), g.input(n_lanes, 1)]
        self._drawn = g.input(n_lanes, codebook_size, 1)  # 1 for each code of this frame
        self._one = g.input(n_lanes, 1, 1)
        self._ranks = g.input(candidates)
        self._by_token = g.input(codebook_size)

    def sample(self, step: int, logits: Tensor) -> Tensor:
        """logits [lanes, codebook_size] -> codes int32 [lanes]. Overwrites the logits."""
        g, lanes, k = self._g, self._n_lanes, self._k
        logits = g.clamp(logits, -_LARGEST, _LARGEST)  # NaN becomes a number: sorting it would crash
        logits = self._penalized(logits)

        values = self._picked(logits, self._ranked(logits))
        p = g.softmax(g.add(g.mul(values, self._inverse_temperature), self._top_k))
        more_likely = g.sub(g.cumsum(p), p)  # mass before each candidate, which stays while that is below top_p
        stays = g.step(g.sub(self._top_p, more_likely))
        last = g.reshape(g.argmax(g.mul(stays, self._ranks)), lanes, 1)
        threshold = self._picked(values, last)

        keys = g.add(g.sign(g.sub(logits, threshold)), self._by_token)
        tokens = self._ranked(keys)
        noise = g.reshape(g.rows(self._noise, step, step + 1), lanes, k)
        scores = g.add(g.add(self._picked(logits, tokens), noise), g.log(stays))
        code = self._picked(tokens, g.reshape(g.argmax(scores), lanes, 1))
        g.expand(g.set_rows(self._drawn, self._one, code))
        return g.reshape(code, lanes)

    def _penalized(self, logits: Tensor) -> Tensor:
        """Codes already in this frame: logits below zero times the penalty, others divided by it."""
        g = self._g
        below_zero = g.step(g.scale(logits, -1.0))
        change = g.add(g.mul(below_zero, self._penalties[1]), self._penalties[0])
        drawn = g.reshape(self._drawn, self._n_lanes, self._size)
        return g.add(logits, g.mul(g.mul(logits, change), drawn))

    def _ranked(self, x: Tensor) -> Tensor:
        """Where the largest are, the largest first: x [lanes, codebook_size] -> int32 [lanes, k]"""
        g = self._g
        if self._k == self._size:
            return g.argsort_descending(x)
        largest = g.top_k(x, self._k)
        return self._picked(largest, g.argsort_descending(self._picked(x, largest)))

    def _picked(self, x: Tensor, indices: Tensor) -> Tensor:
        """x [lanes, n], indices int32 [lanes, m] -> x[lane, indices[lane]] [lanes, m]"""
        g = self._g
        return g.reshape(g.lookup(g.reshape(x, *x.shape, 1), indices), *indices.shape)

    def set_constants(self) -> None:
        """After the graph's memory is allocated."""
        g = self._g
        g.set(self._one, 1)
        g.set(self._ranks, np.arange(1, self._k + 1))
        g.set(self._by_token, -np.arange(self._size) / self._size)

    def set_requests(self, requests: Sequence[tuple[Sampling, np.random.Generator]]) -> None:
        """Each lane's settings and random numbers for one frame; lanes that are left over are greedy."""
        g, n = self._g, self._n_lanes
        noise = np.zeros(self._noise.shape, np.float32)
        top_k = np.full((n, self._k), -np.inf, np.float32)
        top_p = np.full((n, self._k), -1, np.float32)
        top_k[:, 0], top_p[:, 0] = 0, _NO_LIMIT
        inverse_temperature, penalty = np.ones((n, 1)), np.ones((n, 1))
        for i, (sampling, rng) in enumerate(requests):
            penalty[i] = sampling.repetition_penalty
            if sampling.draws:
                kept = _kept(sampling, self._size)
                noise[:, i, :kept] = rng.gumbel(size=(len(noise), kept)) * sampling.temperature
                top_k[i, :kept] = 0
                top_p[i, :kept] = sampling.top_p if sampling.top_p < 1 else _NO_LIMIT
                inverse_temperature[i] = 1 / sampling.temperature
        g.set(self._noise, noise)
        g.set(self._top_k, top_k)
        g.set(self._top_p, top_p)
        g.set(self._inverse_temperature, inverse_temperature)
        g.set(self._penalties[0], 1 / penalty - 1)
        g.set(self._penalties[1], penalty - 1 / penalty)
        g.set(self._drawn, 0)
