"""Each plan that this machine can run computes what the plain one computes, up to rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, OptionError, SpeechOptions
from qwen3tts_gguf.engine.forced import Forced, teacher_forced
from qwen3tts_gguf.engine.plan import Plan
from qwen3tts_gguf.ggml.device import Backend, Weights
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.rows import dequantize_rows, quantize_rows
from qwen3tts_gguf.ggml.trial import Verdict
from qwen3tts_gguf.ggml.types import GgmlType

PLAIN = "talker=plain,predictor=plain"
OTHERS = (
    "",
    "talker=repack,predictor=plain",
    "talker=extra,predictor=plain",
    "talker=plain,predictor=repack",
    "talker=plain,predictor=amx",
    "talker=plain,predictor=amx-rows",
    "codec=f16",
    "codec=f32",
)
N_FRAMES = 6

# ggml's "AMX", "CPU_REPACK" and so on, and ordinary memory.
PLACEMENTS = {"": Verdict.WORKS, **Plan.for_this_machine(2).verdicts}


@pytest.mark.parametrize("type", [GgmlType.Q8_0, GgmlType.Q4_0])
@pytest.mark.parametrize("placement", [name for name, verdict in PLACEMENTS.items() if verdict is not Verdict.OFF])
@pytest.mark.parametrize("n_rows", [1, 2, 5, 37])
def test_a_product_is_that_of_the_quantized_factors(placement: str, type: GgmlType, n_rows: int) -> None:
    if PLACEMENTS[placement] is Verdict.ROWS and n_rows > 1:
        pytest.skip("single rows only")
    n_out, n_in = 352, 1024
    backend = Backend(2, [placement] if placement else [])
    if backend.placement((n_out, n_in), type) != placement:
        pytest.skip(f"{placement} takes no {type.name}")
    rng = np.random.default_rng(0)
    weight_blocks = quantize_rows(rng.standard_normal((n_out, n_in), np.float32), type)
    rows = rng.standard_normal((n_rows, n_in), np.float32)
    rows = dequantize_rows(quantize_rows(rows, GgmlType.Q8_0), GgmlType.Q8_0)  # which ggml rounds to themselves
    weights = Weights(backend)
    graph = Graph(backend)
    x = graph.input(n_rows, n_in)
    y = graph.output(graph.linear(weights.matrix(weight_blocks, (n_out, n_in), type), x))
    graph.allocate()
    graph.set(x, rows)
    graph.compute()
    exact = rows.astype(np.float64) @ dequantize_rows(weight_blocks, type).astype(np.float64).T
    assert np.abs(graph.get(y) - exact).max() <= 1e-5 * np.abs(exact).max()


@pytest.fixture(scope="module")
def forced(pair: Callable[..., ConvertedPair]) -> Callable[[str, str], Forced]:
    """forced(type, plan) -> what a model of that type computes with that plan, given the same codes"""
    codes = np.random.default_rng(0).integers(0, 256, (N_FRAMES, 16)).astype(np.int32)
    known: dict[tuple[str, str], Forced] = {}

    def compute(type: str, plan: str) -> Forced:
        if (type, plan) not in known:
            with TTS(pair(type, "f16").talker, n_threads=2, plan=plan) as tts:
                request = tts.request("Some words.", options=SpeechOptions(seed=0))
                known[type, plan] = teacher_forced(tts.engine, request, codes)
        return known[type, plan]

    return compute


@pytest.mark.parametrize("type", ["q8_0", "q4_0", "q4_k_m"])
@pytest.mark.parametrize("plan", OTHERS)
def test_every_plan_computes_what_the_plain_one_does(forced: Callable[..., Forced], type: str, plan: str) -> None:
    try:
        found = forced(type, plan)
    except OptionError as error:
        pytest.skip(str(error))
    expected = forced(type, PLAIN)
    assert cosines(found.hidden, expected.hidden).min() >= 0.9999
    assert cosines(found.logits, expected.logits).min() >= 0.9999
    assert snr_db(found.samples, expected.samples) >= 30
    heads = cosines(found.predictor_logits, expected.predictor_logits)  # a few roundings of activations turn over
    assert heads.mean() >= 0.999 and heads.min() >= 0.99


def snr_db(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.sum(expected**2) / max(np.sum((found - expected) ** 2), 1e-20)))


def cosines(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    """Along the last axis, which alone may hold infinite values, in both at once."""
    x, y = (np.where(np.isfinite(each), each, 0).astype(np.float64) for each in (x, y))
    products: NDArray[np.float64] = (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1))
    return products
