"""The code predictor: free-running against teacher-forced, its sampling, and quantized weights against F32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.model.files import MmprojFile, ModelFiles
from qwen3tts_gguf.nets.code_predictor import CodePredictor, Frame
from qwen3tts_gguf.nets.sampling import Sampling

GREEDY = Sampling(draws=False)
CODE0 = 7


@pytest.fixture(scope="module")
def predictor(files: ModelFiles) -> CodePredictor:
    return CodePredictor(files.mmproj, Backend(1))  # one thread: frames this small only wait for each other


@pytest.fixture(scope="module")
def hidden(golden: Callable[[str], dict[str, Any]]) -> NDArray[np.float32]:
    """The talker's output at eight steps, [8, talker_hidden]."""
    return np.asarray(golden("predictor")["hidden"][:8])


def frame_of(
    predictor: CodePredictor,
    hidden: NDArray[np.float32],
    sampling: Sampling = GREEDY,
    rng: np.random.Generator | None = None,
) -> Frame:
    """Of one lane: hidden [talker_hidden]"""
    (frame,) = predictor.predict(hidden[None], [CODE0], [(sampling, rng or np.random.default_rng(0))])
    return frame


def predicted(
    predictor: CodePredictor, hidden: NDArray[np.float32], sampling: Sampling, seed: int = 0
) -> NDArray[np.int32]:
    """One lane's codes, one row of `hidden` after another."""
    rng = np.random.default_rng(seed)
    return np.stack([frame_of(predictor, row, sampling, rng).codes for row in hidden])


def test_a_greedy_frame_is_the_argmax_of_each_step(predictor: CodePredictor, hidden: NDArray[np.float32]) -> None:
    for row in hidden:
        codes = frame_of(predictor, row).codes
        assert codes.dtype == np.int32 and codes.shape == (16,) and codes[0] == CODE0
        assert np.array_equal(predictor.logits(row, codes).argmax(axis=1), codes[1:])


def test_the_last_code_does_not_change_the_logits(predictor: CodePredictor, hidden: NDArray[np.float32]) -> None:
    codes = np.arange(16, dtype=np.int32)
    before = predictor.logits(hidden[0], codes)
    codes[15] = 99
    assert np.array_equal(predictor.logits(hidden[0], codes), before)
    codes[3] = 99
    after = predictor.logits(hidden[0], codes)
    assert np.allclose(after[:3], before[:3], atol=1e-5) and not np.allclose(after[3:], before[3:], atol=1e-2)


def test_threads_may_come_and_go_between_parts_of_a_frame(files: ModelFiles, hidden: NDArray[np.float32]) -> None:
    backend = Backend(2)
    predictor = CodePredictor(files.mmproj, backend)
    numbers = iter([1, 2, 1, 2, 1])
    expected = frame_of(predictor, hidden[0])
    (found,) = predictor.predict(
        hidden[:1],
        [CODE0],
        [(GREEDY, np.random.default_rng(0))],
        before_part=lambda: backend.use_threads(next(numbers)),
    )
    assert next(numbers, None) is None  # five parts of three steps
    assert np.array_equal(found.codes, expected.codes) and np.array_equal(found.embedding, expected.embedding)


def test_frames_do_not_remember_each_other(predictor: CodePredictor, hidden: NDArray[np.float32]) -> None:
    for sampling in GREEDY, Sampling(draws=False, repetition_penalty=2.0):
        first = predicted(predictor, hidden, sampling)
        assert np.array_equal(predicted(predictor, hidden[::-1], sampling)[::-1], first)


@pytest.mark.parametrize(
    "narrow",
    [Sampling(top_k=1), Sampling(top_k=50, top_p=1e-6), Sampling(top_k=0, top_p=1e-6), Sampling(temperature=1e-6)],
    ids=str,
)
def test_the_narrowest_settings_are_greedy(
    predictor: CodePredictor, hidden: NDArray[np.float32], narrow: Sampling
) -> None:
    assert np.array_equal(predicted(predictor, hidden[:3], narrow), predicted(predictor, hidden[:3], GREEDY))


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(top_p=0.9), Sampling(top_k=0, repetition_penalty=1.2)], ids=str
)
def test_the_same_seed_gives_the_same_frames(
    predictor: CodePredictor, hidden: NDArray[np.float32], sampling: Sampling
) -> None:
    first = predicted(predictor, hidden[:3], sampling, seed=3)
    assert np.array_equal(predicted(predictor, hidden[:3], sampling, seed=3), first)
    assert not np.array_equal(predicted(predictor, hidden[:3], sampling, seed=4), first)


def test_greedy_is_greedy_after_a_draw(predictor: CodePredictor, hidden: NDArray[np.float32]) -> None:
    """They share a graph: nothing of the draw's settings may stay in it."""
    greedy = predicted(predictor, hidden[:2], GREEDY)
    predicted(predictor, hidden[:2], Sampling(top_k=50, temperature=5.0, repetition_penalty=2.0))
    assert np.array_equal(predicted(predictor, hidden[:2], GREEDY), greedy)


def test_a_frame_takes_no_random_number_when_greedy(predictor: CodePredictor, hidden: NDArray[np.float32]) -> None:
    rng = np.random.default_rng(0)
    frame_of(predictor, hidden[0], GREEDY, rng)
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=2.0, top_k=6),
        Sampling(temperature=3.0, top_k=20, top_p=0.6),
        Sampling(temperature=1.5, top_k=0, top_p=0.5),
    ],
    ids=str,
)
def test_the_first_code_follows_the_official_distribution(
    predictor: CodePredictor, hidden: NDArray[np.float32], sampling: Sampling
) -> None:
    """Temperature, top-k, top-p, softmax, on the logits of the first head."""
    logits = predictor.logits(hidden[0], np.full(16, CODE0, np.int32))[0].astype(np.float64) / sampling.temperature
    order = np.argsort(-logits)[: sampling.top_k or logits.size]
    p = np.exp(logits[order] - logits.max())
    p /= p.sum()
    kept = np.cumsum(p) - p < sampling.top_p
    order, p = order[kept], p[kept] / p[kept].sum()
    assert len(p) > 3  # a test of something

    rng, n = np.random.default_rng(11), 300
    chosen = np.array([frame_of(predictor, hidden[0], sampling, rng).codes[1] for _ in range(n)])
    assert set(chosen.tolist()) <= set(order.tolist())
    counts = np.array([(chosen == code).sum() for code in order])
    likely = p * n >= 5
    statistic = ((counts - p * n)[likely] ** 2 / (p * n)[likely]).sum()
    freedom = max(int(likely.sum()) - 1, 1)
    assert statistic <= freedom + 5 * np.sqrt(2 * freedom)


def test_a_huge_penalty_forbids_a_code_twice_in_a_frame(predictor: CodePredictor, hidden: NDArray[np.float32]) -> None:
    codes = predicted(predictor, hidden, Sampling(draws=False, repetition_penalty=1e6))
    assert all(len(set(frame[1:])) == 15 for frame in codes.tolist())


def test_the_penalty_is_aware_of_the_sign(files: ModelFiles, hidden: NDArray[np.float32]) -> None:
    predictor = CodePredictor(files.mmproj, Backend(1))
    sampling = Sampling(draws=False, repetition_penalty=1.5)
    for row in hidden[:4]:
        codes = frame_of(predictor, row, sampling).codes
        for step, logits in enumerate(predictor.logits(row, codes)):
            chosen = codes[1 : 1 + step]  # code 0 belongs to another codebook
            logits[chosen] = np.where(logits[chosen] < 0, logits[chosen] * 1.5, logits[chosen] / 1.5)
            assert codes[1 + step] == logits.argmax()


def test_embed_is_the_sum_of_the_frames_code_embeddings(
    predictor: CodePredictor, hidden: NDArray[np.float32], files: ModelFiles
) -> None:
    first = files.mmproj.file.array("a.gen.code.out_embd.weight")
    rest = files.mmproj.file.array("a.gen.code.embd.weight")
    codes = predicted(predictor, hidden[:3], Sampling())
    expected = np.stack([first[f[0]] + sum(rest[i, f[1 + i]] for i in range(15)) for f in codes])
    assert np.allclose(predictor.embed(codes), expected, atol=1e-5)
    frame = frame_of(predictor, hidden[0])
    assert np.allclose(frame.embedding, predictor.embed(frame.codes[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("type", "cosine"), [("f16", 0.99999), ("bf16", 0.9999), ("q8_0", 0.998), ("q4_k_m", 0.97), ("q4_0", 0.92)]
)
def test_quantized_logits_stay_near(
    pair: Callable[..., ConvertedPair],
    predictor: CodePredictor,
    golden: Callable[[str], dict[str, Any]],
    hidden: NDArray[np.float32],
    type: str,
    cosine: float,
) -> None:
    codes = golden("predictor")["codes"][: len(hidden)].astype(np.int32)
    quantized = CodePredictor(MmprojFile(pair(type).mmproj), Backend(1))
    for row, frame in zip(hidden, codes, strict=True):
        exact, found = predictor.logits(row, frame), quantized.logits(row, frame)
        products = (exact * found).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(found, axis=1)
        assert products.min() > cosine
    free = frame_of(quantized, hidden[0], Sampling(top_p=0.9)).codes
    assert free.min() >= 0 and free.max() < quantized.config.codebook_size


def test_a_predictor_as_wide_as_the_talker_has_no_projection(pair: Callable[..., ConvertedPair]) -> None:
    narrow = CodePredictor(MmprojFile(pair(size="tiny-0.6b").mmproj), Backend(1))
    assert not narrow.config.projected
    hidden = np.random.default_rng(0).standard_normal(narrow.config.talker_hidden).astype(np.float32)
    codes = frame_of(narrow, hidden).codes
    assert np.array_equal(narrow.logits(hidden, codes).argmax(axis=1), codes[1:])
