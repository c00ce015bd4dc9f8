"""The code predictor: codes 1..15 of a frame, one after another, and the frame's embedding for the talker.

    talker hidden [talker_hidden] ─┐ position 0
    embedding of code 0 ───────────┤ position 1 -> head 0 -> code 1
    embedding of code 1 ───────────┤ position 2 -> head 1 -> code 2
    ...                            └ position 15 -> head 14 -> code 15
    frame embedding = sum of the embeddings of codes 0..15 [talker_hidden]

Each position: proj_in (where the talker is wider) -> 5 layers of attention and SwiGLU -> norm -> head -> sampling.
Mirrors Qwen3TTSTalkerCodePredictorModelForConditionalGeneration and the loop of its `generate` (qwen-tts 0.1.1,
core/models/modeling_qwen3_tts.py).

The whole frame is one graph, sampling included, built once: sixteen passes over the layers that stay in the cache, and
Python is entered once a frame. A draw from softmax(logits / T) is the argmax of logits + T * Gumbel noise, so the
graph takes the scaled noise as an input; zero noise is greedy decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..ggml.device import Backend, Tensor, Weights
from ..ggml.graph import Graph
from ..ggml.types import GgmlType
from ..model.files import MmprojFile
from ..model.schema import N_CODEBOOKS, CodePredictorConfig
from .layers import WeightLoader, require_numbers, row_by_row, stacked_linear, table_rows
from .sampling import Sampling

__all__ = ["CodePredictor", "Frame"]

N_STEPS = N_CODEBOOKS - 1
_MAX_NODES = 8192
_STEPS_A_PART = 3  # 10 to 15 ms at Q8_0, after which threads that came free can help
_FEW_ROWS = 2  # of the first pass
_LARGEST = 1e30


# -- weights -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    ln1: Tensor  # [hidden]
    attn_qkv: list[Tensor]  # attn_q [n_heads * head_dim, hidden]; attn_k, attn_v [n_kv_heads * head_dim, hidden]
    attn_qk_norm: Tensor  # [n_heads + n_kv_heads, head_dim]: attn_q_norm and attn_k_norm, for each head
    attn_out: Tensor  # [hidden, n_heads * head_dim]
    ln2: Tensor  # [hidden]
    ffn_gate_up: list[Tensor]  # ffn_gate and ffn_up, [ffn, hidden] each
    ffn_down: Tensor  # [hidden, ffn]; never F16, which its input (peaks of 1.5e5) overflows


@dataclass(frozen=True)
class CodePredictorWeights:
    out_embd: Tensor  # [3072, talker_hidden]: code 0, and the talker's other codec tokens
    embd: list[Tensor]  # 15 of [2048, talker_hidden]: codes 1..15
    proj_in: tuple[Tensor, Tensor] | None  # [hidden, talker_hidden], [hidden]
    layers: list[Layer]
    output_norm: Tensor  # [hidden]
    head: list[Tensor]  # 15 of [2048, hidden]

    @classmethod
    def load(cls, load: WeightLoader, config: CodePredictorConfig) -> CodePredictorWeights:
        projected = load.has("proj_in.weight")
        return cls(
            out_embd=load.tensor("out_embd.weight"),
            embd=load.tensors("embd.weight"),
            proj_in=(load.matrix("proj_in.weight"), load.tensor("proj_in.bias")) if projected else None,
            layers=[cls._layer(load.at(f"blk.{i}"), config) for i in range(config.n_layers)],
            output_norm=load.tensor("output_norm.weight"),
            head=load.matrices("head.weight"),
        )

    @staticmethod
    def _layer(load: WeightLoader, c: CodePredictorConfig) -> Layer:
        norms = (load.values("attn_q_norm.weight"), load.values("attn_k_norm.weight"))
        by_head = np.repeat(np.stack(norms), (c.n_heads, c.n_kv_heads), axis=0)
        return Layer(
            ln1=load.tensor("ln1.weight"),
            attn_qkv=load.stacked("attn_q.weight", "attn_k.weight", "attn_v.weight"),
            attn_qk_norm=load.array(by_head),
            attn_out=load.matrix("attn_out.weight"),
            ln2=load.tensor("ln2.weight"),
            ffn_gate_up=load.stacked("ffn_gate.weight", "ffn_up.weight"),
            ffn_down=load.matrix("ffn_down.weight"),
        )


# -- the net -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """What the predictor makes of one talker step."""

    codes: NDArray[np.int32]  # [16]
    embedding: NDArray[np.float32]  # [talker_hidden]


class CodePredictor:
    """Stateless between frames: its attention reaches over one frame only."""

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        self.config = model.predictor
        self._file = model.file
        self._backend = backend
        self._weights_memory = Weights(backend)
        self._weights = CodePredictorWeights.load(
            WeightLoader(model.file, self._weights_memory).at("a.gen.code"), self.config
        )
        self._graphs: dict[_Way, _FrameGraph] = {}
        self._forced: _ForcedGraph | None = None

    def predict(
        self,
        hidden: NDArray[np.float32],
        code0: int,
        sampling: Sampling,
        rng: np.random.Generator,
        before_part: Callable[[], None] = lambda: None,
    ) -> Frame:
        """hidden [talker_hidden], the talker's after its final norm -> the frame's codes and embedding.

        rng: only used when `sampling` draws; each frame takes the same number of values from it. before_part: called
        every few steps, where the backend's threads may become more or fewer. Raises ModelFileError when weights turn
        out to be damaged.
        """
        graph = self._graph(sampling)
        frame = graph.run(hidden, code0, sampling, rng, before_part)
        for values in (graph.logit_sums, frame.embedding):
            require_numbers(values, self._file, "code predictor")
        return frame

    def prepare(self, sampling: Sampling) -> None:
        """Build what `predict` computes, so that the first frame need not wait for it."""
        self._graph(sampling)

    def _graph(self, sampling: Sampling) -> _FrameGraph:
        way = _Way.of(sampling, self.config.codebook_size)
        if way not in self._graphs:
            self._graphs[way] = _FrameGraph(self._weights, self.config, self._backend, way)
        return self._graphs[way]

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
            self._forced = _ForcedGraph(self._weights, self.config, self._backend)
        return self._forced.run(hidden, codes)


@dataclass(frozen=True)
class _Way:
    """What the shape of a frame's graph depends on."""

    n_candidates: int
    nucleus: bool
    penalized: bool

    @classmethod
    def of(cls, sampling: Sampling, codebook_size: int) -> _Way:
        penalized = sampling.repetition_penalty != 1
        if not sampling.draws:
            return cls(codebook_size, nucleus=False, penalized=penalized)
        return cls(min(sampling.top_k or codebook_size, codebook_size), sampling.top_p < 1, penalized)


class _FrameGraph:
    """One frame in one graph, for one way of sampling: top_k candidates (0: all) with or without a nucleus."""

    def __init__(self, weights: CodePredictorWeights, config: CodePredictorConfig, backend: Backend, way: _Way) -> None:
        self._way = way
        self._graph = g = Graph(backend, max_nodes=_MAX_NODES)
        self._hidden = g.input(1, config.talker_hidden)
        self._code0 = g.input(1, type=GgmlType.I32)
        self._codes = g.input(N_STEPS, type=GgmlType.I32)
        self._noise = g.input(N_STEPS, way.n_candidates)
        self._top_p = g.input(1)
        self._inverse_temperature = g.input(1)
        self._penalties = [g.input(1), g.input(1)]
        self._sums = g.input(N_STEPS, 1)
        self._said = g.input(config.codebook_size, 1)
        self._one = g.input(1, 1)
        stack = _Stack(g, weights, config)

        embedding = g.lookup(weights.out_embd, self._code0)
        x = g.concat([self._hidden, embedding])
        for i in range(N_STEPS):
            if i and i % _STEPS_A_PART == 0:
                g.cut()
            y = stack.forward(x)
            logits = g.linear(weights.head[i], g.rows(y, y.shape[0] - 1, y.shape[0]))
            g.expand(g.copy(g.sum(logits), g.rows(self._sums, i, i + 1)))
            logits = g.clamp(logits, -_LARGEST, _LARGEST)  # sorting a NaN would crash; clamping makes a number of it
            if way.penalized:
                logits = self._penalized(g, logits)
            code = self._sampled(g, logits, g.rows(self._noise, i, i + 1))
            g.expand(g.copy(code, g.rows(self._codes, i, i + 1)))
            if way.penalized:
                g.expand(g.set_rows(self._said, self._one, code))
            x = g.lookup(weights.embd[i], code)
            embedding = g.add(embedding, x)
        self._embedding = g.output(embedding)
        g.allocate()
        stack.set_constants()

    def run(
        self,
        hidden: NDArray[np.float32],
        code0: int,
        sampling: Sampling,
        rng: np.random.Generator,
        before_part: Callable[[], None],
    ) -> Frame:
        g = self._graph
        g.array(self._hidden)[0] = hidden
        g.array(self._code0)[0] = code0
        g.array(self._noise)[...] = 0  # an input keeps its value: greedy shares the graph of a draw from all codes
        if sampling.draws:
            g.array(self._noise)[...] = sampling.temperature * rng.gumbel(size=self._noise.shape)
            g.array(self._top_p)[0] = sampling.top_p
            g.array(self._inverse_temperature)[0] = 1 / sampling.temperature
        if self._way.penalized:
            penalty = sampling.repetition_penalty
            g.array(self._penalties[0])[0] = 1 / penalty - 1
            g.array(self._penalties[1])[0] = penalty - 1 / penalty
            g.array(self._said)[:] = 0
            g.array(self._one)[:] = 1
        g.compute(before_part)
        codes = np.empty(N_CODEBOOKS, np.int32)
        codes[0], codes[1:] = code0, g.array(self._codes)
        return Frame(codes, g.array(self._embedding)[0].copy())

    @property
    def logit_sums(self) -> NDArray[np.float32]:
        """Of the last frame's heads [15, 1]: NaN or infinity in a logit shows here."""
        return self._graph.array(self._sums)

    def _penalized(self, g: Graph, logits: Tensor) -> Tensor:
        """Codes already in this frame: logits below zero times the penalty, others divided by it."""
        below_zero = g.step(g.scale(logits, -1.0))
        change = g.add(g.mul(below_zero, self._penalties[1]), self._penalties[0])
        said = g.reshape(self._said, 1, logits.shape[1])
        return g.add(logits, g.mul(g.mul(logits, change), said))

    def _sampled(self, g: Graph, logits: Tensor, noise: Tensor) -> Tensor:
        """logits [1, codebook_size], noise [1, n_candidates] -> one code, int32 [1]

        The official order: temperature, top-k, top-p, draw. Temperature changes no order, so it enters with the noise
        and in the nucleus's probabilities only.
        """
        way, width = self._way, logits.shape[1]
        candidates: Tensor | None = None  # codes that `logits` has shrunk to, int32 [k, 1]
        if way.n_candidates < width:
            candidates = g.reshape(g.top_k(logits, way.n_candidates), way.n_candidates, 1)
            logits = _gathered(g, logits, candidates)
        if way.nucleus:
            order = g.reshape(g.argsort_descending(logits), way.n_candidates, 1)
            logits = _gathered(g, logits, order)
            candidates = g.lookup(candidates, g.reshape(order, way.n_candidates)) if candidates else order
            p = g.softmax(g.mul(logits, self._inverse_temperature))
            more_likely = g.sub(g.cumsum(p), p)  # mass before each candidate; it is kept while that is below top_p
            kept = g.step(g.add(g.scale(more_likely, -1.0), self._top_p))
            logits = g.add(logits, g.log(kept))
        choice = g.argmax(g.add(logits, noise))
        return choice if candidates is None else g.reshape(g.lookup(candidates, choice), 1)


class _ForcedGraph:
    """All positions of a frame at once, the codes given: for comparing logits."""

    def __init__(self, weights: CodePredictorWeights, config: CodePredictorConfig, backend: Backend) -> None:
        self._graph = g = Graph(backend, max_nodes=_MAX_NODES)
        self._hidden = g.input(1, config.talker_hidden)
        self._codes = g.input(N_CODEBOOKS, type=GgmlType.I32)
        stack = _Stack(g, weights, config)
        tables = [weights.out_embd, *weights.embd[:-1]]
        codes = [g.rows(self._codes, i, i + 1) for i in range(N_STEPS)]
        x = g.concat([self._hidden, *(g.lookup(table, code) for table, code in zip(tables, codes, strict=True))])
        y = stack.forward(x)
        rows = [g.linear(head, g.rows(y, i + 1, i + 2)) for i, head in enumerate(weights.head)]
        self._logits = g.output(g.concat(rows))
        g.allocate()
        stack.set_constants()

    def run(self, hidden: NDArray[np.float32], codes: NDArray[np.int32]) -> NDArray[np.float32]:
        g = self._graph
        g.array(self._hidden)[0] = hidden
        g.array(self._codes)[:] = codes
        g.compute()
        return np.array(g.array(self._logits), np.float32)


class _Stack:
    """proj_in, the layers and the final norm, over the positions of one frame; keys and values stay in the graph."""

    def __init__(self, g: Graph, weights: CodePredictorWeights, config: CodePredictorConfig) -> None:
        self._g, self._w, self._c = g, weights, config
        self._n_done = 0
        kv_shape = (N_CODEBOOKS, config.n_kv_heads * config.head_dim)
        self._kv = [(g.input(*kv_shape), g.input(*kv_shape)) for _ in weights.layers]
        self._positions = g.input(N_CODEBOOKS, type=GgmlType.I32)
        self._masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """The next positions: x [T, talker_hidden] -> [T, hidden]"""
        g, w, start, stop = self._g, self._w, self._n_done, self._n_done + x.shape[0]
        self._n_done = stop
        positions = g.rows(self._positions, start, stop)
        mask = None
        if x.shape[0] > 1:
            mask = g.input(x.shape[0], stop, type=GgmlType.F16)
            self._masks.append(mask)
        if w.proj_in:
            x = g.linear(w.proj_in[0], x, w.proj_in[1])
        for layer, kv in zip(w.layers, self._kv, strict=True):
            x = self._layer(layer, kv, x, positions, mask, start)
        return g.rms_norm(x, w.output_norm, self._c.rms_eps)

    def _layer(
        self, w: Layer, kv: tuple[Tensor, Tensor], x: Tensor, positions: Tensor, mask: Tensor | None, start: int
    ) -> Tensor:
        g, c, n = self._g, self._c, x.shape[0]
        linear = g.linear if n > _FEW_ROWS else partial(row_by_row, g)
        n_qk, n_kv = c.n_heads + c.n_kv_heads, c.n_kv_heads * c.head_dim
        h = g.rms_norm(x, w.ln1, c.rms_eps)
        qkv = stacked_linear(g, w.attn_qkv, h, linear)
        qk = g.rope(g.rms_norm(g.columns(qkv, 0, n_qk, c.head_dim), w.attn_qk_norm, c.rms_eps), positions, c.rope_theta)
        qk = g.reshape(qk, n, n_qk * c.head_dim)
        q = g.columns(qk, 0, c.n_heads, c.head_dim)
        k, v = g.columns(qk, c.n_heads * c.head_dim, n_kv), g.columns(qkv, n_qk * c.head_dim, n_kv)
        for cache, new in zip(kv, (k, v), strict=True):
            g.expand(g.copy(new, g.rows(cache, start, start + n)))
        keys, values = (
            g.transpose(g.reshape(g.rows(cache, 0, start + n), start + n, c.n_kv_heads, c.head_dim), 1, 0, 2)
            for cache in kv
        )
        y = g.attention(g.transpose(q, 1, 0, 2), keys, values, mask, c.head_dim**-0.5)
        x = g.add(x, linear(w.attn_out, g.reshape(y, n, c.n_heads * c.head_dim)))
        h = g.rms_norm(x, w.ln2, c.rms_eps)
        return g.add(x, linear(w.ffn_down, g.silu_gate(stacked_linear(g, w.ffn_gate_up, h, linear))))

    def set_constants(self) -> None:
        """After the graph's memory is there."""
        self._g.array(self._positions)[:] = np.arange(N_CODEBOOKS)
        for mask in self._masks:
            n, n_keys = mask.shape
            self._g.array(mask)[...] = np.triu(np.full((n, n_keys), -np.inf, np.float16), k=1 + n_keys - n)


def _gathered(g: Graph, row: Tensor, indices: Tensor) -> Tensor:
    """row [1, width], indices int32 [k, 1] -> row's values there [1, k]"""
    column = g.reshape(row, row.shape[1], 1)
    return g.reshape(g.lookup(column, g.reshape(indices, indices.shape[0])), 1, indices.shape[0])
