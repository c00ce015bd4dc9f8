"""The talker's sampler against the official order, written out once more and plainly."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_gguf.nets.sampling import MIN_NEW_TOKENS, Sampling, TalkerSampler, draw

END, N = 20, 24  # end of speech, and the size of this test's vocabulary
SUPPRESSED = (21, 22, 23)


def hf_probabilities(
    logits: NDArray[np.float32], s: Sampling, generated: Sequence[int] = (), suppressed: Collection[int] = ()
) -> NDArray[np.float64]:
    """What transformers draws from: its logits processors, one after the other, then softmax.

    RepetitionPenalty, MinNewTokensLength, SuppressTokens, Temperature, TopK, TopP (logits_process.py).
    """
    scores = logits.astype(np.float64)
    for token in set(generated):
        scores[token] *= s.repetition_penalty if scores[token] < 0 else 1 / s.repetition_penalty
    if len(generated) < 2:
        scores[END] = -np.inf
    for token in suppressed:
        scores[token] = -np.inf
    scores /= s.temperature
    if s.top_k:
        scores[scores < np.sort(scores)[-min(s.top_k, len(scores))]] = -np.inf
    if s.top_p < 1:
        order = np.argsort(scores)  # ascending: what lies in the lower 1 - top_p goes, but never the likeliest
        p = np.exp(scores[order] - scores.max())
        gone = np.cumsum(p / p.sum()) <= 1 - s.top_p
        gone[-1] = False
        scores[order[gone]] = -np.inf
    p = np.exp(scores - scores.max())
    return np.asarray(p / p.sum())


def logits_of(seed: int = 3) -> NDArray[np.float32]:
    return (1.5 * np.random.default_rng(seed).standard_normal(N)).astype(np.float32)


def sampler(s: Sampling, seed: int = 0) -> TalkerSampler:
    return TalkerSampler(s, np.random.default_rng(seed), end_of_speech=END, suppressed=SUPPRESSED)


def chi_square(counts: NDArray[np.integer], p: NDArray[np.float64]) -> tuple[float, int]:
    """The statistic over the tokens expected at least 5 times, and its degrees of freedom."""
    expected = p * counts.sum()
    likely = expected >= 5
    return float(((counts - expected)[likely] ** 2 / expected[likely]).sum()), int(likely.sum()) - 1


SETTINGS = [
    Sampling(temperature=1.0, top_k=0),
    Sampling(temperature=0.9, top_k=50),
    Sampling(temperature=0.5, top_k=5),
    Sampling(temperature=1.7, top_k=0, top_p=0.8),
    Sampling(temperature=0.9, top_k=8, top_p=0.6),
    Sampling(temperature=1.2, top_k=1),
]


@pytest.mark.parametrize("s", SETTINGS, ids=str)
def test_draws_follow_the_official_distribution(s: Sampling) -> None:
    logits, rng = logits_of(), np.random.default_rng(7)
    logits[SUPPRESSED,] = -np.inf
    counts = np.bincount([draw(logits, s, rng) for _ in range(20_000)], minlength=N)
    p = hf_probabilities(logits, s, generated=[0, 0])
    assert not counts[p == 0].any()
    statistic, freedom = chi_square(counts, p)
    assert statistic <= freedom + 4 * np.sqrt(2 * freedom)  # four standard deviations


@pytest.mark.parametrize("s", [Sampling(repetition_penalty=1.6, top_k=0), Sampling(repetition_penalty=1.05, top_p=0.7)])
def test_a_whole_speech_follows_the_official_distribution(s: Sampling) -> None:
    """Many short speeches: the frequencies of each next token, given the tokens so far."""
    rows = [logits_of(seed) for seed in (3, 4, 3, 5)]
    found: dict[tuple[int, ...], list[int]] = {}
    rng = np.random.default_rng(1)
    for _ in range(1500):
        one = TalkerSampler(s, rng, end_of_speech=END, suppressed=SUPPRESSED)
        tokens = tuple(one.choose(row) for row in rows)
        for i, token in enumerate(tokens):
            found.setdefault(tokens[:i], []).append(token)
    n_compared = 0
    for so_far, tokens in found.items():
        if len(tokens) < 100:
            continue
        p = hf_probabilities(rows[len(so_far)], s, so_far, SUPPRESSED)
        counts = np.bincount(tokens, minlength=N)
        assert not counts[p == 0].any()
        statistic, freedom = chi_square(counts, p)
        assert statistic <= freedom + 5 * np.sqrt(2 * max(freedom, 1))
        n_compared += 1
    assert n_compared > 3


def test_the_token_that_crosses_top_p_is_kept() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05])).astype(np.float32)
    rng = np.random.default_rng(0)
    for top_p, kept in [(0.4, {0}), (0.6, {0, 1}), (0.85, {0, 1, 2}), (0.96, {0, 1, 2, 3})]:
        s = Sampling(temperature=1.0, top_k=0, top_p=top_p)
        assert {draw(logits, s, rng) for _ in range(400)} == kept


def test_top_p_counts_within_top_k() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1])).astype(np.float32)
    s = Sampling(temperature=1.0, top_k=2, top_p=0.55)  # of the two kept: 0.57 and 0.43
    assert {draw(logits, s, np.random.default_rng(seed)) for seed in range(50)} == {0}


@pytest.mark.parametrize("s", [Sampling(top_p=1e-6), Sampling(top_k=1), Sampling(temperature=1e-6)], ids=str)
def test_the_narrowest_settings_are_greedy(s: Sampling) -> None:
    drawing, greedy = sampler(s), sampler(Sampling(draws=False))
    rows = [logits_of(seed) for seed in range(40)]
    assert [drawing.choose(row) for row in rows] == [greedy.choose(row) for row in rows]


def test_ties_go_to_the_lower_token() -> None:
    logits = np.array([0, 5, 1, 5, 5], np.float32)
    assert draw(logits, Sampling(top_k=1), np.random.default_rng(0)) == 1
    assert {draw(logits, Sampling(top_k=2), np.random.default_rng(seed)) for seed in range(60)} == {1, 3}


@pytest.mark.parametrize("top_k", [1, 7, 50])
def test_of_equal_logits_at_the_cut_the_lower_tokens_are_kept(top_k: int) -> None:
    logits = np.random.default_rng(5).integers(0, 12, 3000).astype(np.float32)
    kept = np.lexsort((np.arange(3000), -logits))[:top_k]
    assert (logits == logits[kept[-1]]).sum() > top_k  # the cut goes through equal ones
    rng = np.random.default_rng(0)
    assert {draw(logits, Sampling(top_k=top_k, temperature=1e3), rng) for _ in range(40 * top_k)} == set(kept.tolist())


def test_the_penalty_is_aware_of_the_sign_and_counts_a_token_once() -> None:
    s = Sampling(draws=False, repetition_penalty=2.0)
    logits = np.full(N, -9, np.float32)
    logits[3], logits[4], logits[5] = 4, 3, 1.5
    one = sampler(s)
    # 3 was generated: 4 -> 2, so 4 is next; then 3 -> 1.5 and 2 ties not with 5's 1.5; however often, it is halved once
    assert [one.choose(logits) for _ in range(5)] == [3, 4, 3, 3, 3]
    negative = np.full(N, -9, np.float32)
    negative[3], negative[4] = -1, -1.5
    one = sampler(s)
    assert [one.choose(negative) for _ in range(3)] == [3, 4, 3]  # -1 -> -2, -1.5 -> -3


def test_greedy_applies_penalty_minimum_and_suppression_alone() -> None:
    s = Sampling(draws=False, temperature=1e-9, top_k=1, top_p=1e-9, repetition_penalty=1.3)
    one, generated = sampler(s), []
    for seed in range(60):
        p = hf_probabilities(logits_of(seed), Sampling(repetition_penalty=1.3, top_k=0), generated, SUPPRESSED)
        generated.append(one.choose(logits_of(seed)))
        assert generated[-1] == p.argmax()
    assert END in generated


@pytest.mark.parametrize("draws", [True, False])
def test_the_end_is_neither_first_nor_second(draws: bool) -> None:
    logits = logits_of()
    logits[END] = 100
    one = sampler(Sampling(draws=draws))
    tokens = [one.choose(logits) for _ in range(MIN_NEW_TOKENS + 1)]
    assert MIN_NEW_TOKENS == 2
    assert END not in tokens[:2] and tokens[2] == END


@pytest.mark.parametrize("draws", [True, False])
def test_suppressed_tokens_are_never_chosen(draws: bool) -> None:
    logits = logits_of()
    logits[SUPPRESSED,] = 100
    one = sampler(Sampling(draws=draws, top_k=0, temperature=2.0))
    assert not {one.choose(logits) for _ in range(200)} & set(SUPPRESSED)


def test_the_same_seed_samples_the_same_tokens() -> None:
    def say(seed: int) -> list[int]:
        one = sampler(Sampling(repetition_penalty=1.05), seed)
        return [one.choose(logits_of(i)) for i in range(50)]

    assert say(5) == say(5)
    assert say(5) != say(6)


def test_the_logits_are_left_as_they_were() -> None:
    logits = logits_of()
    before = logits.copy()
    one = sampler(Sampling(repetition_penalty=2.0))
    for _ in range(3):
        one.choose(logits)
    assert np.array_equal(logits, before)
