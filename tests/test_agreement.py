"""The arithmetic of agreement, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qwen3tts_gguf.measure.agreement import cosine, divergence, rank, snr_db

LOGITS = np.random.default_rng(0).standard_normal((3, 4, 50)).astype(np.float32)


def test_equal_answers_agree_exactly() -> None:
    assert (cosine(LOGITS, LOGITS.copy()) == 1).all()
    assert (divergence(LOGITS, LOGITS.copy()) == 0).all()
    assert (rank(LOGITS, LOGITS.copy()) == 0).all()
    assert snr_db(LOGITS[0, 0], LOGITS[0, 0].copy()) == math.inf


def test_leading_axes_stay() -> None:
    for measure in cosine, divergence, rank:
        assert measure(LOGITS, LOGITS[::-1]).shape == (3, 4)


def test_cosine_is_of_the_angle() -> None:
    found = np.array([[2, 0], [0, 1], [-3, 0], [1, 1]], np.float32)
    assert cosine(found, np.tile(np.float32([1, 0]), (4, 1))) == pytest.approx([1, 0, -1, math.sqrt(0.5)])


def test_divergence_is_weighed_by_what_was_expected() -> None:
    found, expected = np.log([0.9, 0.1]), np.log([0.5, 0.5])
    assert divergence(found, expected) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert divergence(expected, found) == pytest.approx(0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5))


def test_divergence_knows_no_offset_and_no_overflow() -> None:
    assert divergence(LOGITS + 3, LOGITS) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(divergence(1e4 * LOGITS, LOGITS)).all()


def test_rank_is_the_place_of_what_was_expected() -> None:
    found = np.array([5.0, 1.0, 4.0, 3.0])
    assert [int(rank(found, np.eye(4)[best])) for best in range(4)] == [0, 3, 1, 2]


def test_snr_is_in_decibels_of_power() -> None:
    signal = np.sin(np.arange(1000, dtype=np.float32))
    assert snr_db(1.1 * signal, signal) == pytest.approx(20, abs=1e-4)
    assert snr_db(signal, 0 * signal) == -math.inf


def test_what_is_not_a_number_agrees_with_nothing() -> None:
    broken = LOGITS.copy()
    broken[..., 7] = np.nan
    assert np.isnan(cosine(broken, LOGITS)).all() and np.isnan(divergence(broken, LOGITS)).all()
    assert (rank(np.full_like(LOGITS, np.nan), LOGITS) == 50).all()
    assert math.isnan(snr_db(broken[0, 0], LOGITS[0, 0]))
