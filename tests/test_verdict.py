"""The report of `verify` and its thresholds."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from qwen3tts_gguf.measure.verdict import Codebook, Report, Spoken, Subject, Thresholds

SAME = Codebook(kl=0.0, top1=1.0, top5=1.0)
SUBJECT = Subject("A model", ("a.gguf", "mmproj-a.gguf"), {"talker": ["Q8_0"]})
EXACT = Report(
    model=SUBJECT,
    against=SUBJECT,
    frames=30,
    hidden_cosine=1.0,
    hidden_cosine_min=1.0,
    codebooks=(SAME,) * 16,
    snr_db=math.inf,
    max_error=0.0,
    speaker_cosine=1.0,
    texts=(Spoken("One.", 10, 10, 1.0, None), Spoken("Two.", 20, 30, 1.0, None)),
)
STRICTEST = Thresholds(1.0, 0.0, 1.0, 0.0, 1.0, math.inf, 1.0, 1.0)


def with_codebooks(first: Codebook, rest: Codebook) -> Report:
    return replace(EXACT, codebooks=(first, *(rest,) * 15))


FAR = {
    "min_cosine": (replace(EXACT, hidden_cosine=0.9), "talker's hidden state is 0.9, but must be at least 0.99 "),
    "max_kl": (with_codebooks(replace(SAME, kl=2.0), SAME), "the KL of code 0 is 2, but must be at most "),
    "min_top1": (with_codebooks(replace(SAME, top1=0.5), SAME), "agreement of code 0 is 0.5, but "),
    "max_predictor_kl": (with_codebooks(SAME, replace(SAME, kl=2.0)), "the KL of codes 1..15 is 2, but "),
    "min_predictor_top1": (with_codebooks(SAME, replace(SAME, top1=0.3)), "agreement of codes 1..15 is 0.3, but "),
    "min_snr": (replace(EXACT, snr_db=12.3), "the codec's SNR in dB is 12.3, but must be at least 40 "),
    "min_speaker": (replace(EXACT, speaker_cosine=0.5), "the cosine of the speaker vectors is 0.5, but "),
}


def test_equal_models_keep_the_strictest_thresholds() -> None:
    assert STRICTEST.failures(EXACT) == [] == Thresholds().failures(EXACT)


@pytest.mark.parametrize("threshold", FAR)
def test_a_threshold_that_is_not_met_is_named_alone(threshold: str) -> None:
    report, message = FAR[threshold]
    (failure,) = Thresholds().failures(report)
    assert message in failure and failure.endswith(f"({threshold})")


def test_greedy_runs_may_differ_by_default() -> None:
    report = replace(EXACT, texts=(Spoken("One.", 10, 10, 0.25, 3),))
    assert Thresholds().failures(report) == []
    (failure,) = Thresholds(min_greedy=0.5).failures(report)
    assert "equal codes in greedy runs is 0.25, but must be at least 0.5 (min_greedy)" in failure


def test_a_value_that_is_not_a_number_meets_no_threshold() -> None:
    broken = replace(
        with_codebooks(*(Codebook(math.nan, math.nan, math.nan),) * 2),
        hidden_cosine=math.nan,
        snr_db=math.nan,
        speaker_cosine=math.nan,
    )
    named = [failure.rpartition("(")[2].rstrip(")") for failure in Thresholds().failures(broken)]
    assert sorted(named) == sorted(FAR)


def test_no_speaker_encoder_fails_nothing() -> None:
    assert STRICTEST.failures(replace(EXACT, speaker_cosine=None)) == []


def test_means_are_over_codebooks_and_over_frames() -> None:
    books = (Codebook(9.0, 0.0, 0.0), *(Codebook(float(i), i / 15, 1.0) for i in range(1, 16)))
    assert replace(EXACT, codebooks=books).predictor == Codebook(8.0, pytest.approx(8 / 15), 1.0)
    texts = Spoken("One.", 10, 10, 1.0, None), Spoken("Two.", 10, 30, 0.2, 5)
    assert replace(EXACT, texts=texts).greedy_equal == pytest.approx((10 * 1.0 + 30 * 0.2) / 40)


def test_the_report_is_plain_data() -> None:
    report = EXACT.as_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["format"] == 1 and report["frames"] == 30 and report["speaker_cosine"] == 1.0
    assert report["snr_db"] is None and report["max_error"] == 0.0
    assert len(report["codebooks"]) == 16 and report["predictor"] == {"kl": 0.0, "top1": 1.0, "top5": 1.0}
    assert report["texts"][1] == {
        "text": "Two.",
        "frames": 20,
        "greedy_frames": 30,
        "greedy_equal": 1.0,
        "first_difference": None,
    }
