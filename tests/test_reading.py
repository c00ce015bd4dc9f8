"""Readings: long texts in one voice, in order, with the pauses asked for, from one lane or several."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from evaluate import NANO, held_out
from judge import VoiceJudge
from recogniser import edits, hear, words

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, NoEndOfSpeech, OptionError, Passage, SpeechOptions, UsageError, Voice, read
from qwen3tts_gguf.engine.lane import Lane
from qwen3tts_gguf.model import nano
from qwen3tts_gguf.speech.passages import n_letters
from qwen3tts_gguf.speech.script import passage_seed, script

RATE = TTS.sample_rate_hz
SENTENCES = [sentence["text"] for sentence in held_out(60)]
TEXT = "\n\n".join(" ".join(SENTENCES[i : i + 10]) for i in range(0, 60, 10))
SHORT = "\n\n".join(" ".join(SENTENCES[i : i + 3]) for i in range(0, 6, 3))
OPTIONS = SpeechOptions(seed=7, language="english")


@pytest.fixture(scope="module")
def speaker() -> Iterator[TTS]:
    with TTS("nano") as tts:
        yield tts


@pytest.fixture(scope="module")
def lanes() -> Iterator[TTS]:
    with TTS("nano", n_lanes=3) as tts:
        yield tts


@pytest.fixture(scope="module")
def random_model(pair: Callable[..., ConvertedPair]) -> Iterator[TTS]:
    """Never ends a speech."""
    with TTS(pair(ends="never").talker, n_threads=1, n_lanes=2) as tts:
        yield tts


def samples_of(passages: list[Passage]) -> list[Any]:
    return [passage.samples for passage in passages]


def joined(passages: list[Passage]) -> Any:
    return np.concatenate([passage.sound for passage in passages])


# -- the proof ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def story(lanes: TTS) -> list[Passage]:
    """Sixty sentences, a passage each."""
    return list(read(lanes, TEXT, Voice.shipped("f2"), OPTIONS, split="sentence", pause=(0.4, 0.9)))


def test_the_sentences_are_recognised_in_order(story: list[Passage]) -> None:
    """nano gets one word in fourteen wrong, and pocketsphinx knows whole templates only: it may miss a sentence."""
    assert [passage.text for passage in story] == SENTENCES and all(passage.ended for passage in story)
    n_recognised = n_errors = 0
    for i, passage in enumerate(story):
        heard = hear(passage.samples, RATE)
        distances = [edits(words(sentence), heard) for sentence in SENTENCES]
        n_recognised += distances[i] == min(distances)
        n_errors += distances[i]
    assert n_recognised >= 57
    assert n_errors / sum(len(words(sentence)) for sentence in SENTENCES) < 0.15


def test_one_voice_speaks_throughout(story: list[Passage]) -> None:
    judge = VoiceJudge.load(NANO / "judge.npz")
    long_enough = [passage for passage in story if passage.seconds > 1]
    right = sum(judge.voice(passage.samples) == "f2" for passage in long_enough)
    assert len(long_enough) > 40 and right / len(long_enough) > 0.9


def test_pauses_and_length_are_exact(story: list[Passage]) -> None:
    expected = [0, *(round((0.9 if i % 10 == 0 else 0.4) * RATE) for i in range(1, 60))]
    assert [passage.pause for passage in story] == expected
    ends = np.cumsum([passage.pause + len(passage.samples) for passage in story])
    assert [passage.start + len(passage.samples) for passage in story] == ends.tolist()
    sound = joined(story)
    assert len(sound) == ends[-1] and np.abs(sound).max() <= 1
    for passage in story[1:]:
        assert not sound[passage.start - passage.pause : passage.start].any()
        assert abs(sound[passage.start]) < 1e-3 and abs(passage.samples[-1]) < 1e-3  # faded: nothing clicks
        assert len(passage.samples) <= 1920 * len(passage.codes)


def test_three_lanes_equal_one_to_the_bit(speaker: TTS, story: list[Passage]) -> None:
    alone = read(speaker, TEXT, Voice.shipped("f2"), OPTIONS, split="sentence", pause=(0.4, 0.9))
    for passage, other in zip(alone, story, strict=True):
        assert np.array_equal(passage.codes, other.codes) and np.array_equal(passage.samples, other.samples)


def test_memory_stays_flat(lanes: TTS) -> None:
    process, levels = psutil.Process(), []
    options = SpeechOptions(seed=7, max_frames=6, retries=0)
    for passage in read(lanes, " ".join([SHORT] * 40), None, options, split="sentence", keep_unended=True):
        if passage.index % 10 == 0:
            levels.append(process.memory_info().rss)
    early, late = levels[: len(levels) // 4], levels[-(len(levels) // 4) :]  # malloc keeps now more, now less
    assert len(early) > 4 and min(late) - max(early) < 8 << 20


# -- equal to what is there --------------------------------------------------------------------------------------------


def test_a_text_that_fits_is_spoken_as_speak_and_stream_do(speaker: TTS) -> None:
    text = "Good evening Maria. It is ten forty five."
    whole = speaker.speak(text, None, OPTIONS)
    (passage,) = read(speaker, text, None, OPTIONS)
    assert np.array_equal(passage.sound, whole) and passage.seed == 7 and passage.start == passage.pause == 0
    streamed = [sound.samples for sound in read(speaker, text, None, OPTIONS).stream()]
    assert {len(samples) for samples in streamed} == {1920}
    assert np.array_equal(np.concatenate(streamed), whole)


def test_a_stream_is_the_passages_as_they_are_made(lanes: TTS) -> None:
    passages = list(read(lanes, SHORT, None, OPTIONS, split="sentence"))
    sounds = list(read(lanes, SHORT, None, OPTIONS, split="sentence").stream())
    assert np.array_equal(np.concatenate([sound.samples for sound in sounds]), joined(passages))
    starts = {sound.index: sound.start for sound in reversed(sounds) if not sound.is_pause}
    assert starts == {passage.index: passage.start for passage in passages}
    assert [len(sound.samples) for sound in sounds if sound.is_pause] == [p.pause for p in passages[1:]]
    assert len(sounds) > 3 * len(passages)


def test_text_that_arrives_in_pieces_is_the_same_reading(speaker: TTS) -> None:
    pieces = [SHORT[i : i + 7] for i in range(0, len(SHORT), 7)]
    whole = samples_of(list(read(speaker, SHORT, None, OPTIONS, split="sentence")))
    for found, expected in zip(read(speaker, pieces, None, OPTIONS, split="sentence"), whole, strict=True):
        assert np.array_equal(found.samples, expected)


def test_sound_comes_before_the_text_is_complete(speaker: TTS) -> None:
    first_sound = threading.Event()

    def writer() -> Iterator[str]:
        yield "My name is Anna. How are "
        assert first_sound.wait(60)
        yield "you today?"

    texts = []
    for sound in read(speaker, writer(), None, OPTIONS, split="sentence").stream():
        first_sound.set()
        texts.append(sound.text)
    assert list(dict.fromkeys(texts)) == ["My name is Anna.", "How are you today?"]


# -- seeds and voices --------------------------------------------------------------------------------------------------


def test_a_change_elsewhere_leaves_a_passage_as_it_is() -> None:
    def seeds(text: str, seed: int = 1) -> dict[tuple[str, int], int]:
        lines = [*script(text, "sentence", None, seed, shares_seed=False)]
        return {
            (line.text, [each.text for each in lines[:i]].count(line.text)): line.seed for i, line in enumerate(lines)
        }

    before, after = seeds("One. Two. One. Three."), seeds("Zero. One. Two, changed. One. Three.")
    assert before.keys() & after.keys() == {("One.", 0), ("One.", 1), ("Three.", 0)}
    assert all(before[key] == after[key] for key in before.keys() & after.keys())
    assert len({*before.values()}) == 4
    assert not {*before.values()} & {*seeds("One. Two. One. Three.", seed=2).values()}


def test_a_reading_repeats_by_its_seed(speaker: TTS) -> None:
    text = "My name is Anna. Wait ten seconds."
    reading = read(speaker, text, split="sentence")
    first = samples_of(list(reading))
    again = samples_of(list(read(speaker, text, options=SpeechOptions(seed=reading.seed), split="sentence")))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_voice_that_the_model_chose_is_carried_on(speaker: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Voice | None] = []
    utter = TTS.utter
    monkeypatch.setattr(
        TTS, "utter", lambda tts, text, voice, *rest: given.append(voice) or utter(tts, text, voice, *rest)
    )
    passages = list(read(speaker, SHORT, Voice(), OPTIONS, split="sentence"))
    assert given[0].codes is None
    assert all(voice is given[1] for voice in given[1:])
    assert np.array_equal(given[1].codes, passages[0].codes) and given[1].transcript == passages[0].text


def test_a_designed_voice_shares_its_seed_and_is_noted_once(pair: Callable[..., ConvertedPair]) -> None:
    made = pair(size="tiny-1.7b", model_type="voice_design", ends="at-once")
    with TTS(made.talker, n_threads=1) as tts:
        passages = list(read(tts, SHORT, Voice.design("An old man."), OPTIONS, split="sentence"))
    assert {passage.seed for passage in passages} == {7}
    notes = [note.message for passage in passages for note in passage.notes]
    assert notes == ["a designed voice may drift from passage to passage"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def ends_after(monkeypatch: pytest.MonkeyPatch, ends: Callable[[int], bool]) -> None:
    """Let the speeches with some seeds end after a frame."""
    from qwen3tts_gguf.engine.mailbox import Ending

    choose = Lane.choose

    def chosen(lane: Lane, logits: Any) -> int | None:
        if lane.n_frames and ends(lane.request.seed):
            lane.ending = Ending(ended=True)
            return None
        return choose(lane, logits)

    monkeypatch.setattr(Lane, "choose", chosen)


def test_a_passage_that_does_not_end_is_retried_alone(random_model: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = passage_seed(7, "Two.", 0)
    ends_after(monkeypatch, lambda seed: seed != bad)
    options = SpeechOptions(seed=7, max_frames=3)
    passages = list(read(random_model, "One. Two. Three.", None, options, split="sentence"))
    assert [passage.seed == passage_seed(7, passage.text, 0) for passage in passages] == [True, False, True]
    assert [note.message for passage in passages for note in passage.notes] == [
        "passage 2 did not end (1 times) and was spoken again with another seed"
    ]


def test_after_the_last_attempt_the_reading_fails_or_continues(
    random_model: TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok = {passage_seed(7, text, 0) for text in ("One.", "Three.")}
    ends_after(monkeypatch, lambda seed: seed in ok)
    options = SpeechOptions(seed=7, max_frames=3, retries=1)
    reading = iter(read(random_model, "One. Two. Three.", None, options, split="sentence"))
    assert next(reading).text == "One."
    with pytest.raises(NoEndOfSpeech, match="passage 2: the speech did not end after"):
        next(reading)
    with pytest.raises(NoEndOfSpeech, match="passage 2"):
        list(read(random_model, "One. Two. Three.", None, options, split="sentence").stream())
    kept = list(read(random_model, "One. Two. Three.", None, options, split="sentence", keep_unended=True))
    assert [passage.ended for passage in kept] == [True, False, True] and len(kept[1].codes) == 3


@pytest.mark.parametrize("streams", [False, True])
def test_leaving_early_ends_everything(random_model: TTS, streams: bool) -> None:
    for _ in range(3):
        reading = read(random_model, "One. Two. Three. Four.", None, SpeechOptions(max_frames=5000), split="sentence")
        with reading:
            if streams:
                next(reading.stream())
            else:
                threading.Timer(0.05, reading.cancel).start()
                assert list(reading) == []
    while any(thread.name.startswith("qwen3tts-reading") for thread in threading.enumerate()):
        threading.Event().wait(0.01)
    assert random_model.engine.call(lambda: [lane for lane in random_model.engine._lanes if not lane.is_over]) == []


def test_a_reading_is_read_once(random_model: TTS) -> None:
    reading = read(random_model, "One.", None, SpeechOptions(max_frames=2))
    next(reading.stream())
    with pytest.raises(UsageError, match="already read"):
        iter(reading)


def test_what_cannot_be_read_is_refused(random_model: TTS) -> None:
    with pytest.raises(OptionError, match="`pause` must be 0 to 60 s, not -1"):
        read(random_model, "One.", pause=-1)
    with pytest.raises(OptionError, match="`split`"):
        read(random_model, "One.", split="word")


def test_nano_has_passages_as_long_as_what_it_learned(speaker: TTS, random_model: TTS) -> None:
    options = SpeechOptions(max_frames=2)
    short, whole = (list(read(tts, SHORT, None, options, keep_unended=True)) for tts in (speaker, random_model))
    assert len(short) > 2 and all(n_letters(passage.text) <= nano.PASSAGE_LETTERS for passage in short)
    assert len(whole) == 1
