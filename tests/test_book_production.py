"""Chapters as sound files with a tiny random model: numbers, passages that do not end, what a rerun leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions
from qwen3tts_gguf.book import production as production_module
from qwen3tts_gguf.book.contents import Book, Chapter
from qwen3tts_gguf.book.production import Production, steady_voice
from qwen3tts_gguf.book.settings import Settings
from qwen3tts_gguf.voice.voice import Voice

mutagen: Any = pytest.importorskip("mutagen")

BOOK = Book("Days", [], author="Anna")
CHAPTERS = [Chapter("Morning", "One. Two."), Chapter("Evening", "Three. Four."), Chapter("Night", "Five. Six.")]
OPTIONS = SpeechOptions(seed=7, max_frames=3, retries=0)
WAV = Settings(format="wav", split="sentence")


@pytest.fixture(scope="module")
def model(pair: Callable[..., ConvertedPair]) -> Iterator[TTS]:
    with TTS(pair(ends="at-once").talker, n_threads=1, n_lanes=2) as tts:
        yield tts


@pytest.fixture(scope="module")
def voice(model: TTS) -> Voice | None:
    return steady_voice(model, CHAPTERS, Voice(), OPTIONS)


@pytest.fixture
def produce(model: TTS, voice: Voice | None, tmp_path: Path) -> Callable[..., Production]:
    def made(
        numbers: set[int] | None = None, chapters: Sequence[Chapter] = CHAPTERS, settings: Settings = WAV,
        options: SpeechOptions = OPTIONS, out: str = "out",
    ) -> Production:  # fmt: skip
        return Production(model, BOOK, chapters, voice, options, settings, tmp_path / out, numbers)

    return made


def names(folder: Path, pattern: str = "*.wav") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def test_chapters_made_one_by_one_have_their_numbers_in_the_book(
    produce: Callable[..., Production], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert [work.number for work, _, _ in produce({2}).make()] == [2]
    assert names(out) == ["02 Evening.wav"]
    assert mutagen.File(out / "02 Evening.wav").tags["TRCK"].text == ["2/3"]
    second = produce({1})
    assert not second.notes and [work.number for work, _, _ in second.make()] == [1]
    assert names(out) == ["01 Morning.wav", "02 Evening.wav"]
    playlist = (out / "Days.m3u8").read_text("utf-8").splitlines()
    assert [line for line in playlist if not line.startswith("#")] == names(out)


def test_a_chapter_that_is_not_wanted_gets_its_new_number_all_the_same(
    produce: Callable[..., Production], tmp_path: Path
) -> None:
    list(produce({1}, [Chapter("Day", "One. Two.")]).make())
    before = (tmp_path / "out" / "01 Day.wav").read_bytes()
    list(produce({1}, [Chapter("Day", "Five. Six."), Chapter("Day", "One. Two.")]).make())
    assert names(tmp_path / "out") == ["01 Day.wav", "02 Day.wav"]
    assert len((tmp_path / "out" / "02 Day.wav").read_bytes()) == len(before)
    assert mutagen.File(tmp_path / "out" / "02 Day.wav").tags["TRCK"].text == ["2/2"]


def test_an_m4b_of_some_chapters_has_only_those(produce: Callable[..., Production], tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    list(produce({3}, out="days.m4b").make())
    with av.open(str(tmp_path / "days.m4b")) as file:
        assert [chapter["metadata"]["title"] for chapter in file.chapters()] == ["Night"]


def test_the_voice_that_the_model_chooses_is_that_of_the_book(model: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(production_module, "passage_letters", lambda tts: 5)
    steady = steady_voice(model, [Chapter("", "One two three four five six."), CHAPTERS[0]], Voice(), OPTIONS)
    assert steady is not None and steady.is_clone and steady.transcript in ("One", "One two")
