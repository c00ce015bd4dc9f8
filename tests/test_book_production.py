"""Chapters as sound files with a tiny random model: numbers, passages that do not end, what a rerun leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_reading

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, NoEndOfSpeech, SpeechOptions
from qwen3tts_gguf.book import production as production_module
from qwen3tts_gguf.book.contents import Book, Chapter
from qwen3tts_gguf.book.production import Production, steady_voice
from qwen3tts_gguf.book.settings import Settings
from qwen3tts_gguf.book.workplace import Passages
from qwen3tts_gguf.speech.script import passage_seed
from qwen3tts_gguf.voice.voice import Voice

mutagen: Any = pytest.importorskip("mutagen")

BOOK = Book("Days", [], author="Anna")
CHAPTERS = [Chapter("Morning", "One. Two."), Chapter("Evening", "Three. Four."), Chapter("Night", "Five. Six.")]
OPTIONS = SpeechOptions(seed=7, max_frames=3, retries=0)
WAV = Settings(format="wav", split="sentence")


@pytest.fixture(scope="module")
def model(pair: Callable[..., ConvertedPair]) -> Iterator[TTS]:
    with TTS(pair(ends="never").talker, n_threads=1, n_lanes=2) as tts:
        yield tts


@pytest.fixture(autouse=True)
def stalling(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Speeches end after a frame, but for those with these seeds."""
    seeds: set[int] = set()
    test_reading.ends_after(monkeypatch, lambda seed: seed not in seeds)
    return seeds


@pytest.fixture
def voice(model: TTS, stalling: set[int]) -> Voice | None:
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


# -- passages that do not end ------------------------------------------------------------------------------------------


def made(production: Production) -> tuple[list[str], str]:
    """The notes of a book, and its error."""
    notes: list[str] = []
    try:
        for _, _, new in production.make():
            notes += [note.message for note in new]
    except NoEndOfSpeech as error:
        return notes, error.message
    return notes, ""


def test_a_chapter_that_did_not_end_is_reported_again_and_made_again_with_more_retries(
    produce: Callable[..., Production], stalling: set[int]
) -> None:
    stalling.add(passage_seed(7, "Four.", 0))
    failed = "chapter 2, passage 2 did not end, and what was spoken was written"
    assert made(produce()) == (["chapter 2, passage 2 did not end (1 times) and is incomplete or has noise"], failed)
    rerun = produce()
    assert all(work.is_finished for work in rerun.work)
    assert made(rerun) == (["chapter 2, passage 2 did not end and is incomplete or has noise"], failed)
    assert made(produce({1, 3})) == ([], "")
    more = produce(options=replace(OPTIONS, retries=1))
    assert [work.is_finished for work in more.work] == [True, False, True]
    assert made(more) == (["chapter 2, passage 2 did not end (1 times) and was spoken again with another seed"], "")
    assert made(produce()) == ([], "")


def test_an_m4b_that_did_not_end_is_reported_again(produce: Callable[..., Production], stalling: set[int]) -> None:
    pytest.importorskip("av")
    stalling.update((passage_seed(7, "Two.", 0), passage_seed(7, "Six.", 0)))
    for _ in range(2):
        notes, error = made(produce(out="days.m4b"))
        assert len(notes) == 2 and error.startswith("2 passages, the first of them in chapter 1, did not end")


def test_a_designed_voice_is_noted_once_in_a_book(pair: Callable[..., ConvertedPair], tmp_path: Path) -> None:
    designed = Voice.design("An old man.")
    with TTS(pair(size="tiny-1.7b", model_type="voice_design", ends="at-once").talker, n_threads=1) as tts:
        notes, _ = made(Production(tts, BOOK, CHAPTERS, designed, OPTIONS, WAV, tmp_path / "out"))
    assert notes == ["a designed voice may drift from passage to passage"]


# -- reruns ------------------------------------------------------------------------------------------------------------


def test_a_finished_m4b_is_left_alone_until_something_changes(
    produce: Callable[..., Production], tmp_path: Path
) -> None:
    pytest.importorskip("av")
    out, fractions = tmp_path / "days.m4b", list[float]()
    settings = replace(WAV, subtitles="srt")
    list(produce(settings=settings, out="days.m4b").make(advance_m4b=fractions.append))
    assert fractions == sorted(fractions) and len(fractions) >= 3 and fractions[-1] > 0.99
    before = out.stat().st_mtime_ns
    again = produce(settings=settings, out="days.m4b")
    assert [work.is_finished for work in again.work] == [True] * 3
    fractions.clear()
    assert [path for _, path, _ in again.make(advance_m4b=fractions.append)] == [out] * 3
    assert not fractions and out.stat().st_mtime_ns == before
    (tmp_path / "days.srt").unlink()
    renamed = [Chapter("Dawn", "One. Two."), *CHAPTERS[1:]]
    for changed in (
        produce(settings=settings, out="days.m4b"),
        produce(None, renamed, settings, out="days.m4b"),
        produce(None, renamed[:2], settings, out="days.m4b"),
    ):
        fractions.clear()
        list(changed.make(advance_m4b=fractions.append))
        assert fractions and (tmp_path / "days.srt").is_file()


def test_what_a_killed_process_left_is_removed(produce: Callable[..., Production], tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(produce().make())
    hidden = out / ".qwen3tts"
    orphan = out / f".{'0a' * 16}.wav"
    for left in (hidden / f"{'0a' * 16}.wav", hidden / "book.m4b", hidden / ".1.part", orphan):
        left.write_bytes(b"left")
    (out / ".own.wav").write_bytes(b"not of the book")
    list(produce().make())
    assert sorted(path.name for path in hidden.iterdir()) == ["chapters", "finished.json", "lock", "passages"]
    assert not orphan.exists() and (out / ".own.wav").exists()


def test_killed_while_chapters_change_names_the_next_run_completes_them(
    produce: Callable[..., Production], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    days = [Chapter("Day", "One. Two."), Chapter("Day", "Three.")]
    more = [Chapter("Day", "Zero."), *days]
    list(produce(None, days).make())
    running = produce(None, more).make()
    next(running)  # chapter 1 is there, the former one has a hidden name
    running.close()
    assert len(names(out, ".*.wav")) == 1
    rerun = produce(None, more)
    assert all(work.is_finished for work in rerun.work)
    list(rerun.make())
    assert names(out) == ["01 Day.wav", "02 Day.wav", "03 Day.wav"] and not names(out, ".*.wav")


def test_files_of_chapters_that_the_book_no_longer_has_are_removed_when_all_are_there(
    produce: Callable[..., Production], tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", replace(WAV, subtitles="srt")
    list(produce(None, CHAPTERS, settings).make())
    (out / "03 Night.wav").write_bytes(b"edited by somebody")
    other = [CHAPTERS[0], Chapter("Noon", "Seven.")]
    some = produce({1}, other, settings)
    list(some.make())
    assert not some.notes and len(names(out)) == 3
    rest = produce(None, other, settings)
    (note,) = rest.notes
    assert "made earlier with another text, voice, model or options (2) are replaced" in note.message
    list(rest.make())
    assert names(out) == ["01 Morning.wav", "02 Noon.wav", "03 Night.wav"]
    assert names(out, "*.srt")[:2] == ["01 Morning.srt", "02 Noon.srt"] and not produce(None, other, settings).notes


def test_a_voice_that_was_tried_before_is_only_decoded_again(
    produce: Callable[..., Production], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(produce().make())
    before = (tmp_path / "out" / "01 Morning.wav").read_bytes()
    list(produce(options=replace(OPTIONS, temperature=0.5)).make())
    spoken: list[str] = []
    monkeypatch.setattr(Passages, "save", lambda self, line, take: spoken.append(line.text))
    list(produce().make())
    assert not spoken and (tmp_path / "out" / "01 Morning.wav").read_bytes() == before


def test_subtitles_come_with_each_chapter_and_follow_its_name(
    produce: Callable[..., Production], tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", replace(WAV, subtitles="srt")
    running = produce(settings=settings).make()
    next(running)
    running.close()
    assert names(out, "*.srt") == ["01 Morning.srt"]
    words = (out / "01 Morning.srt").read_text("utf-8")
    list(produce(None, [CHAPTERS[1], CHAPTERS[0]], settings).make())
    assert names(out, "*.srt") == ["01 Evening.srt", "02 Morning.srt"]
    assert (out / "02 Morning.srt").read_text("utf-8") == words and "Three." in (out / "01 Evening.srt").read_text()


def test_a_chapter_made_again_under_another_name_leaves_no_old_file(
    produce: Callable[..., Production], tmp_path: Path, stalling: set[int]
) -> None:
    stalling.add(passage_seed(7, "Four.", 0))
    made(produce(None, [Chapter("Day", "Three. Four.")]))
    more = [Chapter("Day", "Zero."), Chapter("Day", "Three. Four.")]
    made(produce(None, more, options=replace(OPTIONS, retries=1)))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".qwen3tts", "01 Day.wav", "02 Day.wav", "Days.m3u8",
    ]  # fmt: skip
