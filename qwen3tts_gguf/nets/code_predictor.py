"""The code predictor: codes 1..15 of a frame, one after another, and the frame's embedding for the talker.

    talker hidden [talker_hidden] ─┐ position 0
    embedding of code 0 ───────────┤ position 1 -> head 0 -> code 1
    embedding of code 1 ───────────┤ position 2 -> head 1 -> code 2
    ...                            └ position 15 -> head 14 -> code 15
    frame embedding = sum of the embeddings of codes 0..15 [talker_hidden]

Mirrors Qwen3TTSTalkerCodePredictorModelForConditionalGeneration and the loop of its `generate` (qwen-tts 0.1.1,
core/models/modeling_qwen3_tts.py). predictor_layers.py has weights and layers, graph_sampler.py the sampling,
predictor_graph.py puts a frame together.

Several speeches (lanes) share a graph, which reads each weight once for all of them. What a lane gets is
bit-identical to what it gets alone: its codes, its embedding, the sums of its logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelFileError
from ..ggml.device import Backend, Weights
from ..model.files import MmprojFile
from .graph_sampler import n_candidates
from .layers import WeightLoader, require_numbers, table_rows
from .predictor_graph import N_STEPS, ForcedGraph, FrameGraph
from .predictor_layers import CodePredictorWeights
from .sampling import Sampling
from .widths import ANY, shares_weights

__all__ = ["CodePredictor", "Frame"]

_WIDTHS = (8, 4, 2, 1)
"""Numbers of lanes that have a graph. Where weights are shared, a quarter of a graph's lanes may be idle: three lanes
of repacked Q4_0 take 137 ms in a graph of three and 109 in one of four (Intel Xeon, one thread)."""


@dataclass(frozen=True)
class Frame:
    """What the predictor makes of one talker step of one lane."""

    codes: NDArray[np.int32]  # [16]
    embedding: NDArray[np.float32]  # [talker_hidden]
    logit_sums: NDArray[np.float32]  # [15], over each head's logits: where one is NaN or infinite, so is its sum
    damage: ModelFileError | None
    """Why codes and embedding mean nothing, if they do not. It concerns this lane alone."""


class CodePredictor:
    """Stateless between frames: its attention spans one frame only. For one thread at a time.

    single_rows: give every product one row at a time, for a placement that survives nothing else.
    """

    def __init__(self, model: MmprojFile, backend: Backend, *, single_rows: bool = False) -> None:
        self.config = model.predictor
        self._file = model.file
        self._backend = backend
        self._max_rows = 1 if single_rows else ANY
        self._weights_memory = Weights(backend)
        self._weights = CodePredictorWeights.load(
            WeightLoader(model.file, self._weights_memory).at("a.gen.code"), self.config
        )
        matrices = [matrix for layer in self._weights.layers for matrix in layer.matrices]
        self._shares = not single_rows and all(shares_weights(m.type, m.placement) for m in matrices)
        self._graphs: dict[tuple[int, int], FrameGraph] = {}  # by lanes and candidates
        self._forced: ForcedGraph | None = None

    def predict(
        self,
        hidden: NDArray[np.float32],
        code0: Sequence[int] | NDArray[np.integer],
        requests: Sequence[tuple[Sampling, np.random.Generator]],
        before_part: Callable[[], None] = lambda: None,
    ) -> list[Frame]:
        """One frame for each lane.

        hidden: [lanes, talker_hidden], the talker's after its final norm. code0: [lanes]. requests: each lane's
        settings and random numbers, of which a frame takes as many with and without other lanes, and none when greedy.
        before_part: called every few steps, where the backend's threads may become more or fewer. A lane whose frame
        came out NaN or infinite has `damage` in it; the others are sound.
        """
        code0 = np.asarray(code0)
        frames: dict[int, Frame] = {}
        for candidates, lanes in self._by_candidates([sampling for sampling, _ in requests]).items():
            start = 0
            for n_lanes in self._widths(len(lanes)):
                some = lanes[start : start + n_lanes]
                start += n_lanes
                graph = self._graph(n_lanes, candidates)
                found = graph.run(hidden[some], code0[some], [requests[lane] for lane in some], before_part)
                frames.update(zip(some, map(self._frame, *found), strict=True))
        return [frames[lane] for lane in range(len(requests))]

    def prepare(self, n_lanes: int, sampling: Sampling) -> None:
        """Build what `predict` computes for so many lanes of these settings, before their first frame needs it."""
        for width in set(self._widths(n_lanes)):
            self._graph(width, n_candidates(sampling, self.config.codebook_size))

    def _by_candidates(self, samplings: Sequence[Sampling]) -> dict[int, list[int]]:
        """Lanes that can share a graph: number of candidates -> lanes"""
        lanes: dict[int, list[int]] = {}
        for lane, sampling in enumerate(samplings):
            lanes.setdefault(n_candidates(sampling, self.config.codebook_size), []).append(lane)
        return lanes

    def _widths(self, n_lanes: int) -> list[int]:
        """The graphs that compute so many lanes, by their number of lanes."""
        widths = []
        while n_lanes > 0:
            idle = {width: width // 4 if self._shares else 0 for width in _WIDTHS}
            widths.append(next(width for width in _WIDTHS if width - idle[width] <= n_lanes))
            n_lanes -= widths[-1]
        return widths

    def _graph(self, n_lanes: int, candidates: int) -> FrameGraph:
        key = n_lanes, candidates
        if key not in self._graphs:
            self._graphs[key] = FrameGraph(
                self._backend, self._weights, self.config, n_lanes, candidates, self._max_rows
            )
        return self._graphs[key]

    def _frame(
        self, codes: NDArray[np.int32], embedding: NDArray[np.float32], logit_sums: NDArray[np.float32]
    ) -> Frame:
        damage = None
        try:
            for values in (logit_sums, embedding):
                require_numbers(values, self._file, "code predictor")
        except ModelFileError as error:
            damage = error
        return Frame(codes, embedding, logit_sums, damage)

    def embed(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """codes [T, 16] -> each frame's embedding [T, talker_hidden], as `predict` gives it"""
        first = table_rows(self._file, "a.gen.code.out_embd.weight", codes[:, 0])
        stacked = codes[:, 1:] + self.config.codebook_size * np.arange(N_STEPS)
        rest = table_rows(self._file, "a.gen.code.embd.weight", stacked.reshape(-1))
        summed: NDArray[np.float32] = first + rest.reshape(len(codes), N_STEPS, -1).sum(axis=1)
        return summed

    def logits(self, hidden: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Teacher-forced: hidden [talker_hidden], codes [16] -> the 15 heads' logits [15, codebook_size]."""
        if self._forced is None:
            self._forced = ForcedGraph(self._backend, self._weights, self.config, self._max_rows)
        return self._forced.run(hidden, codes)
