"""Sampling inside a graph against the same in NumPy, ties included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.nets.graph_sampler import GraphSampler, n_candidates
from qwen3tts_gguf.nets.sampling import Sampling

SIZE = 200


def sample(
    logits: NDArray[np.float32], samplings: Sequence[Sampling], seeds: Sequence[int], candidates: int
) -> NDArray[np.int32]:
    """logits [steps, lanes, SIZE] -> codes [steps, lanes]"""
    n_steps, n_lanes, size = logits.shape
    g = Graph(Backend(1))
    x = g.input(*logits.shape)
    sampler = GraphSampler(g, n_lanes, n_steps, size, candidates)
    codes = [g.output(sampler.sample(i, g.contiguous(g.row(x, i)))) for i in range(n_steps)]
    g.allocate()
    sampler.set_constants()
    sampler.set_requests([(s, np.random.default_rng(seed)) for s, seed in zip(samplings, seeds, strict=True)])
    g.set(x, logits)
    g.compute()
    return np.stack([g.get(code) for code in codes])


def kept(logits: NDArray[np.float32], s: Sampling) -> list[int]:
    """Which tokens the official order leaves, likeliest first, the lower of equal ones first."""
    order = np.lexsort((np.arange(logits.size), -logits))[: s.top_k or logits.size]
    if not s.draws:
        return [int(order[0])]
    scaled = logits[order].astype(np.float64) / s.temperature
    p = np.exp(scaled - scaled[0])
    p /= p.sum()
    return [int(token) for token in order[np.cumsum(p) - p < s.top_p]]


def tied_logits(seed: int) -> NDArray[np.float32]:
    """Few different values, so that every cut goes through equal ones."""
    return np.random.default_rng(seed).integers(-4, 4, SIZE).astype(np.float32)


@pytest.mark.parametrize(
    "s",
    [
        Sampling(draws=False),
        Sampling(top_k=1),
        Sampling(temperature=30, top_k=5),
        Sampling(temperature=30, top_k=64),
        Sampling(temperature=3, top_k=40, top_p=0.3),
        Sampling(temperature=30, top_k=70),
        Sampling(temperature=3, top_k=0, top_p=0.2),
    ],
    ids=str,
)
def test_of_equal_logits_at_a_cut_the_lower_tokens_are_kept(s: Sampling) -> None:
    for seed in range(3):
        logits = tied_logits(seed)
        expected = kept(logits, s)
        n_draws = 16 * len(expected)
        found = sample(np.tile(logits, (1, n_draws, 1)), [s] * n_draws, range(n_draws), n_candidates(s, SIZE))
        counts = np.bincount(found[0], minlength=SIZE)
        assert set(np.flatnonzero(counts).tolist()) <= set(expected)
        if len(set(logits[expected].tolist())) == 1:  # all equally likely, so each is drawn
            assert counts[expected].min() > 0


@pytest.mark.parametrize("candidates", [64, SIZE])
def test_a_draw_is_the_largest_of_logits_and_noise(candidates: int) -> None:
    """Which of the rng's values belongs to which token: those of the tokens kept, in the order of the tokens, but those
    that are equal to the last one come last."""
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((1, 12, SIZE)).astype(np.float32)
    s = Sampling(temperature=1.3, top_k=20)
    found = sample(logits, [s] * 12, range(12), candidates)
    for lane, row in enumerate(logits[0]):
        tokens = kept(row, s)
        order = [*sorted(tokens[:-1]), tokens[-1]]
        noise = np.float32(np.random.default_rng(lane).gumbel(size=(1, 20))[0] * s.temperature)
        assert found[0, lane] == order[int(np.argmax(row[order] + noise))]


@pytest.mark.parametrize("candidates", [64, SIZE])
def test_the_number_of_candidates_sorted_does_not_change_a_draw(candidates: int) -> None:
    samplings = [Sampling(top_k=k, top_p=p, temperature=2) for k in (1, 10, 50) for p in (0.5, 1.0)]
    logits = np.stack([np.tile(tied_logits(9), (6, 1)), np.random.default_rng(3).standard_normal((6, SIZE))])
    found = sample(logits.astype(np.float32), samplings, range(6), candidates)
    assert np.array_equal(found, sample(logits.astype(np.float32), samplings, range(6), SIZE))


def test_the_penalty_is_of_codes_drawn_before_and_of_its_own_lane() -> None:
    logits = np.full((3, 2, SIZE), -9, np.float32)
    logits[:, 0, [5, 8]] = 4, 3
    logits[:, 1, [5, 8]] = -1, -1.5
    samplings = [Sampling(draws=False, repetition_penalty=1.5), Sampling(draws=False, repetition_penalty=2.0)]
    assert sample(logits, samplings, [0, 0], 64).T.tolist() == [[5, 8, 5], [5, 8, 5]]
    assert sample(logits, [samplings[0], Sampling(draws=False)], [0, 0], 64).T.tolist() == [[5, 8, 5], [5, 5, 5]]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_give_some_code_and_leave_other_lanes_alone(value: float) -> None:
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((2, 3, SIZE)).astype(np.float32)
    samplings = [Sampling(), Sampling(top_p=0.5), Sampling(draws=False)]
    expected = sample(logits, samplings, range(3), 64)
    logits[:, 1] = value
    found = sample(logits, samplings, range(3), 64)
    assert np.array_equal(found[:, [0, 2]], expected[:, [0, 2]])
    assert found.min() >= 0 and found.max() < SIZE


def test_settings_choose_between_two_numbers_of_candidates() -> None:
    assert {n_candidates(Sampling(top_k=k), 2048) for k in range(1, 65)} == {64}
    assert {n_candidates(Sampling(top_k=k), 2048) for k in (0, 65, 2048, 9999)} == {2048}
    assert n_candidates(Sampling(draws=False, top_k=0), 2048) == 64
    assert n_candidates(Sampling(), 30) == n_candidates(Sampling(top_k=0), 30) == 30
