"""The clips of models/voices and models/nano/voices: what the tables say of them, and what they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qwen3tts_gguf.model.schema import SAMPLE_RATE_HZ

MODELS = Path(__file__).parents[1] / "models"
BOX, NANO = MODELS / "voices", MODELS / "nano/voices"
MAX_BYTES = 1_500_000
PRESETS = "vivian serena uncle_fu dylan eric ryan aiden ono_anna sohee"
OPENAI = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar"
TAKEN = {*PRESETS.split(), *OPENAI.split(), "none", "default"}


def table(folder: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((folder / "voices.json").read_text("utf-8"))
    return rows


def spectrum_db(samples: np.ndarray, rate_hz: int, around_hz: float) -> float:
    """Power at a frequency over that nearby: mains hum stands out by 20 dB and more."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    at = power[np.abs(hz - around_hz) < 1].max()
    return float(10 * np.log10(at / power[(np.abs(hz - around_hz) > 2) & (np.abs(hz - around_hz) < 12)].mean()))


@pytest.mark.parametrize("folder", [BOX, NANO], ids=["box", "nano"])
def test_the_table_names_every_clip_and_no_other(folder: Path) -> None:
    rows = table(folder)
    assert len(rows) == 10
    assert {row["name"] for row in rows} == {clip.stem for clip in folder.glob("*.flac")}
    for row in rows:
        assert row["sex"] in ("female", "male") and row["accent"] and row["origin"] and row["transcript"]


def test_the_names_are_plain_and_mean_nothing_else() -> None:
    names = {row["name"] for row in table(BOX)}
    assert all(re.fullmatch(r"[a-z]{3,6}", name) for name in names)
    assert not names & (TAKEN | {row["name"] for row in table(NANO)})


def test_the_card_shows_the_table() -> None:
    shown = re.findall(r"^\| ([a-z]+) \|(.*)\|$", (BOX / "README.md").read_text("utf-8"), re.MULTILINE)
    cells = [[name, *(cell.strip() for cell in rest.split("|"))] for name, rest in shown if name != "name"]
    columns = ("name", "sex", "pitch_hz", "accent", "origin", "transcript")
    assert cells == [[str(row[column]) for column in columns] for row in table(BOX)]


def test_nanos_table_has_the_transcripts_next_to_the_clips() -> None:
    assert {row["name"]: row["transcript"] for row in table(NANO)} == {
        file.stem: file.read_text("utf-8").strip() for file in NANO.glob("*.txt")
    }


@pytest.mark.parametrize("name", [row["name"] for row in table(BOX)])
def test_a_clip_is_short_clean_and_at_the_level_of_the_others(name: str) -> None:
    clip = BOX / f"{name}.flac"
    info = soundfile.info(clip)
    assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
    assert 5 <= info.duration <= 9
    samples, _ = soundfile.read(clip)
    assert abs(samples.mean()) < 1e-3
    assert 20 * np.log10(np.sqrt((samples**2).mean())) == pytest.approx(-24, abs=0.5)
    assert np.abs(samples).max() < 0.9
    quiet = SAMPLE_RATE_HZ // 20  # before and after the speech
    for edge in (samples[:quiet], samples[-quiet:]):
        assert np.abs(edge).max() < 0.01 and np.abs(np.diff(edge)).max() < 0.005
    assert max(spectrum_db(samples, SAMPLE_RATE_HZ, hum) for hum in (50, 60)) < 15


def test_transcripts_hold_only_words_and_marks() -> None:
    assert all(re.fullmatch(r"[A-Za-z ,.!?]+", row["transcript"]) for row in table(BOX))


def test_all_clips_together_stay_small() -> None:
    assert sum(clip.stat().st_size for clip in BOX.glob("*.flac")) < MAX_BYTES
