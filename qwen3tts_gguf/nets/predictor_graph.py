"""The code predictor's computations: a whole frame of several lanes in one graph, and a teacher-forced one.

Sixteen passes over the layers, sampling included, are built once and stay in the cache; Python is entered once per
frame. An idle lane computes values that are never read: lanes do not touch each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend
from ..ggml.graph import Graph
from ..ggml.types import GgmlType
from ..model.schema import N_CODEBOOKS, CodePredictorConfig
from .graph_sampler import GraphSampler
from .predictor_layers import CodePredictorWeights, PredictorLayers
from .sampling import Sampling
from .widths import ANY

__all__ = ["N_STEPS", "ForcedGraph", "FrameGraph"]

N_STEPS = N_CODEBOOKS - 1
_MAX_NODES = 32_768  # 12 layers, 8 lanes and each product by itself: 27,000; what is not used is never touched
_STEPS_PER_PART = 3  # 10 to 15 ms at Q8_0, after which threads that came free can help


class FrameGraph:
    """One frame for up to `n_lanes` lanes, sampled from so many candidates."""

    def __init__(
        self,
        backend: Backend,
        weights: CodePredictorWeights,
        config: CodePredictorConfig,
        n_lanes: int,
        candidates: int,
        max_rows: int = ANY,
    ) -> None:
        self.n_lanes = n_lanes
        self._graph = g = Graph(backend, max_nodes=_MAX_NODES)
        self._hidden = g.input(n_lanes, config.talker_hidden)
        self._code0 = g.input(n_lanes, type=GgmlType.I32)
        self._codes = g.memory(N_STEPS, n_lanes, type=GgmlType.I32)
        self._sums = g.memory(N_STEPS, n_lanes)
        layers = PredictorLayers(g, weights, config, n_lanes, max_rows)
        self._sampler = GraphSampler(g, n_lanes, N_STEPS, config.codebook_size, candidates)

        embedding = g.lookup(weights.out_embd, self._code0)
        per_lane = (n_lanes, 1, config.talker_hidden)
        x = g.concat([g.reshape(self._hidden, *per_lane), g.reshape(embedding, *per_lane)], axis=1)
        for i in range(N_STEPS):
            if i and i % _STEPS_PER_PART == 0:
                g.cut()
            logits = layers.logits(i, layers.forward(x))
            g.expand(g.copy(g.sum(logits), g.rows(self._sums, i, i + 1)))
            code = self._sampler.sample(i, logits)
            g.expand(g.copy(code, g.rows(self._codes, i, i + 1)))
            drawn = g.lookup(weights.embd[i], code)
            embedding = g.add(embedding, drawn)
            x = g.reshape(drawn, *per_lane)
        self._embedding = g.output(embedding)
        g.allocate()
        layers.set_constants()
        self._sampler.set_constants()

    def run(
        self,
        hidden: NDArray[np.float32],
        code0: NDArray[np.integer],
        requests: Sequence[tuple[Sampling, np.random.Generator]],
        before_part: Callable[[], None],
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]:
        """hidden [n, talker_hidden], code0 [n], n <= n_lanes -> codes [n, 16], embeddings [n, talker_hidden], and the
        sums of the logits of each head [n, 15]"""
        g, n = self._graph, len(hidden)
        idle = self.n_lanes - n
        g.set(self._hidden, np.pad(hidden, ((0, idle), (0, 0))))
        g.set(self._code0, np.pad(code0, (0, idle)))
        self._sampler.set_requests(requests)
        g.compute(before_part)
        codes = np.concatenate([np.asarray(code0, np.int32)[:, None], g.get(self._codes).T[:n]], axis=1)
        return codes, g.get(self._embedding)[:n], g.get(self._sums).T[:n]


class ForcedGraph:
    """All positions of a frame at once, the codes given: for comparing logits."""

    def __init__(
        self, backend: Backend, weights: CodePredictorWeights, config: CodePredictorConfig, max_rows: int = ANY
    ) -> None:
        self._graph = g = Graph(backend, max_nodes=_MAX_NODES)
        self._hidden = g.input(1, config.talker_hidden)
        self._codes = g.input(N_CODEBOOKS, type=GgmlType.I32)
        layers = PredictorLayers(g, weights, config, 1, max_rows)
        tables = [weights.out_embd, *weights.embd[:-1]]
        codes = [g.rows(self._codes, i, i + 1) for i in range(N_STEPS)]
        x = g.concat([self._hidden, *(g.lookup(table, code) for table, code in zip(tables, codes, strict=True))])
        y = layers.forward(g.reshape(x, 1, N_CODEBOOKS, config.talker_hidden))
        y = g.reshape(y, N_CODEBOOKS, 1, 1, config.hidden)
        self._logits = g.output(g.concat([layers.logits(i, g.row(y, i + 1)) for i in range(N_STEPS)]))
        g.allocate()
        layers.set_constants()

    def run(self, hidden: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """hidden [talker_hidden], codes [16] -> [15, codebook_size]"""
        self._graph.set(self._hidden, hidden)
        self._graph.set(self._codes, codes)
        self._graph.compute()
        return self._graph.get(self._logits)
