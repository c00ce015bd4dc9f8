"""Text that is still arriving: its tokens, and the speech that is made of it meanwhile."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, LiveText, NoEndOfSpeech, SpeechOptions, TextError, UsageError, Utterance, Voice
from qwen3tts_gguf.engine.lane import Lane
from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.model.tokenizer import Tokenizer
from qwen3tts_gguf.speech.live_prompt import LivePrompt
from qwen3tts_gguf.speech.live_text import LiveTokens
from qwen3tts_gguf.speech.prompt import Prompt
from qwen3tts_gguf.speech.text import clean_text

Pair = Callable[..., ConvertedPair]

TEXTS = (
    "Hello, world!",
    "One.",
    "I'll say: it's they'RE 'same' we've 'll",
    "Wait... what?! Yes!!",
    "line one\r\nline two\r\n\r\n  three\n \n four",
    "  lead  and   trail \n ",
    "cafe\u0301 e\u0323\u0302\u0301 o\u0308\u0323x nai\u0308ve",
    "👩‍👩‍👧‍👦 family 😀😀 🏳️‍🌈!",
    "今天天气很好，我们去公园。明天早上八点见面！",
    "こんにちは、か\u3099行です。",
    "한국어 문장입니다. \u1112\u1161\u11ab\u1100\u116e\u11a8",
    "สวัสดีครับ ผมชื่อ",
    "हिन्दी में लिखा है",
    "1234.56 3,000 ½ Ⅷ",
    "e=mc^2 a≠b =\u0338 x",
    "((hello)) [x] {y}\t\ttab",
    "'s 't 'R 'll 'l l",
    "don’t “quote” — dash–dash",
    "a\u00a0b\u3000c\u200bd\ufeff",
    "\u0301start",
    "unbelievably extraordinary Donaudampfschifffahrtsgesellschaft",
    "العربية مع تَشْكِيل",
    "Привет, мир... Как дела?",
    "naïve—Ωhm \u2126 \u212b",
    "\U0001f1e9\U0001f1ea flags",
    "a  \n\n  b",
    "!\n!\r\n!? so",
    "ﬁne ﬃ",
    "A.B.C. U.S.A.'s",
    "The keeper of the lighthouse counted the waves every morning, and every evening the waves counted him.",
)
RUNS = (
    "今天天气很好我们一起去公园散步然后回家吃饭明天早上八点在车站见面。",
    "どこで生れたかとんと見当がつかぬ",
    "ABC公司今天天气很好我们一起去公园",
    "x" * 200 + " y",
    "=" * 150 + "\nz",
    "e" + "\u0301" * 100 + "x",
)
LETTERS = "aA zé\u0301\u0323=\u0338'slre.,!?\r\n\t今天か\u3099\u1112\u1161\u11ab5½😀\u200d\u200b\u3000(-"


@pytest.fixture(scope="module")
def tokenizer(files: ModelFiles) -> Tokenizer:
    return Tokenizer(files.talker.file, files.talker.tokens)


@pytest.fixture(scope="module")
def tts(pair: Pair) -> Iterator[TTS]:
    """Speech that does not end, two lanes."""
    with TTS(pair("q4_0", "f16", ends="never").talker, n_threads=2, n_lanes=2) as tts:
        yield tts


@pytest.fixture(scope="module")
def voice(tts: TTS) -> Voice:
    return Voice.from_audio(tiny.reference_clip(24_000), tts, rate_hz=24_000, transcript="The keeper speaks.")


def options(**changes: Any) -> SpeechOptions:
    return SpeechOptions(**{"seed": 5, "max_frames": 12, "layout": "stepwise", **changes})


def cut(text: str, rng: random.Random) -> list[str]:
    places = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(1, 6)))
    return [text[start:end] for start, end in pairwise([0, *places, len(text)])]


def tokens_of(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    tokens = LiveTokens(tokenizer)
    return [i for piece in pieces for i in tokens.feed(piece)] + tokens.finish()


def fed(tts: TTS, pieces: list[str], voice: Voice | None, options: SpeechOptions) -> NDArray[np.int32]:
    """The codes of a text that arrives, each piece before the next frame is read."""
    text = LiveText()
    with tts.utter(text, voice, options) as utterance:
        for piece in pieces:
            text.feed(piece)
            tts.engine.call(lambda: None)
        text.finish()
        utterance.finish()
    return utterance.codes


def whole(tts: TTS, text: str, voice: Voice | None, options: SpeechOptions) -> NDArray[np.int32]:
    with tts.utter(text, voice, options) as utterance:
        utterance.finish()
    return utterance.codes


def until(engine: Any, condition: Callable[[], bool]) -> None:
    """Let the engine go on until something is so."""
    while not condition():
        engine.call(lambda: None)


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_of_a_text_gives_its_tokens(tokenizer: Tokenizer, text: str) -> None:
    expected = tokenizer.encode(clean_text(text))
    assert tokens_of(tokenizer, list(text)) == expected
    for i in range(len(text) + 1):
        assert tokens_of(tokenizer, [text[:i], text[i:]]) == expected, i


@pytest.mark.parametrize("text", RUNS)
def test_the_cuts_of_long_runs_do_not_depend_on_how_they_arrive(tokenizer: Tokenizer, text: str) -> None:
    expected = tokens_of(tokenizer, [text])
    assert tokens_of(tokenizer, list(text)) == expected
    rng = random.Random(text)
    for _ in range(50):
        assert tokens_of(tokenizer, cut(text, rng)) == expected


@given(st.text(alphabet=LETTERS, max_size=40), st.randoms(use_true_random=False))
def test_any_text_and_any_cuts(tokenizer: Tokenizer, text: str, rng: random.Random) -> None:
    if not clean_text(text):
        return
    found = tokens_of(tokenizer, cut(text, rng))
    assert found == tokens_of(tokenizer, list(text))
    if not any(len(piece) > 8 for piece in tokenizer.pieces(clean_text(text))):
        assert found == tokenizer.encode(clean_text(text))


def test_a_word_is_certain_with_the_space_after_it(tokenizer: Tokenizer) -> None:
    tokens = LiveTokens(tokenizer)
    assert tokens.feed(" The keep") == tokenizer.encode("The")
    assert tokens.feed("er") == []
    assert tokens.feed(" ") == tokenizer.encode(" keeper")
    assert tokens.feed("\n") == []
    assert tokens.feed("!?") == tokenizer.encode(" \n")
    assert tokens.finish() == tokenizer.encode("!?")


def test_no_more_than_eight_letters_without_spaces_are_held_back(tokenizer: Tokenizer) -> None:
    tokens, text = LiveTokens(tokenizer), RUNS[0]
    n_letters = 0
    for i, letter in enumerate(text):
        ids = tokens.feed(letter)
        n_letters = i if i < 8 else n_letters
        assert bool(ids) or i < 8 or len(tokens._held) <= 8


def test_a_speech_that_never_ends_is_bounded(tokenizer: Tokenizer) -> None:
    for letter in ("x", "=", "\u0301", "今"):
        tokens = LiveTokens(tokenizer)
        for _ in range(500):
            tokens.feed(letter)
        assert len(tokens._held) <= 64


# -- speech ------------------------------------------------------------------------------------------------------------


def rows_of(tts: TTS, text: str, voice: Voice | None) -> Prompt:
    """The prompt of a whole text."""
    prompt = tts.request(text, voice, options()).prompt
    assert isinstance(prompt, Prompt)
    return prompt


def assert_same_rows(live: LivePrompt, expected: Prompt) -> None:
    assert live.reaches(0) and live.n_shared == expected.n_shared and live.n_text_tokens == expected.n_text_tokens
    assert np.array_equal(live.embeddings, expected.embeddings)
    for i in range(len(expected.trailing) + 2):
        assert np.array_equal(live.text_row(i), expected.text_row(i))


@pytest.mark.parametrize("text", TEXTS)
def test_every_cut_of_every_text_gives_the_talker_the_rows_of_the_whole_text(tts: TTS, text: str) -> None:
    expected = rows_of(tts, text, Voice())
    for i in range(len(text) + 1):
        live = LiveText()
        request = tts.request(live, Voice(), options())
        for piece in (text[:i], text[i:]):
            live.feed(piece)
        live.finish()
        assert isinstance(request.prompt, LivePrompt)
        assert_same_rows(request.prompt, expected)


def test_texts_side_by_side_give_the_codes_of_the_whole_texts(tts: TTS) -> None:
    """Two threads, letter by letter and cut at random, to the end of the text and beyond."""
    rng = random.Random(0)
    jobs = [(text, pieces) for text in TEXTS[:8:2] for pieces in (list(text), cut(text, rng))]
    differ: list[str] = []

    def work(jobs: list[tuple[str, list[str]]]) -> None:
        for text, pieces in jobs:
            wish = options(max_frames=rows_of(tts, text, Voice()).n_text_tokens + 3)
            if not np.array_equal(fed(tts, pieces, Voice(), wish), whole(tts, text, Voice(), wish)):
                differ.append(text)

    threads = [threading.Thread(target=work, args=(jobs[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differ


def test_a_voice_is_used_by_its_speaker_vector(tts: TTS, voice: Voice) -> None:
    expected = whole(tts, TEXTS[0], voice.without_codes(), options())
    assert np.array_equal(fed(tts, [TEXTS[0]], voice, options(layout="whole")), expected)


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[-1] * 3], ids=["shorter", "longer"])
def test_in_context_the_text_is_laid_over_the_reference(tts: TTS, voice: Voice, text: str) -> None:
    """Shorter and longer than the reference."""
    in_context = options(live_in_context=True)
    expected = whole(tts, text, voice, in_context)
    rng = random.Random(text)
    for pieces in (list(text), cut(text, rng)):
        assert np.array_equal(fed(tts, pieces, voice, in_context), expected)


def test_a_voice_without_a_vector_is_used_in_context(tts: TTS, voice: Voice) -> None:
    codes_only = Voice(codes=voice.codes, transcript=voice.transcript)
    assert np.array_equal(fed(tts, [TEXTS[0]], codes_only, options()), whole(tts, TEXTS[0], codes_only, options()))


def test_the_budget_is_that_of_the_whole_text(tts: TTS) -> None:
    unbounded = options(max_frames=None)
    text = "ABC and NASA say " * 3
    with tts.utter(text, Voice(), unbounded) as expected:
        expected.finish()
    live = LiveText()
    with tts.utter(live, Voice(), unbounded) as utterance:
        assert utterance.max_frames > expected.max_frames
        frames = iter(utterance)
        for piece in text:
            live.feed(piece)
        live.finish()
        next(frames)
        assert utterance.max_frames == expected.max_frames
        utterance.finish()
    assert utterance.runaway == expected.runaway and np.array_equal(utterance.codes, expected.codes)


def came_to(lane: Lane, n_frames: int) -> bool:
    return lane.n_frames >= n_frames


def test_speech_starts_with_four_tokens_and_waits_for_each_other(tts: TTS) -> None:
    text = LiveText()
    with tts.utter(text, Voice(), options(max_frames=None)) as utterance:
        lane, frames = utterance._lane, []
        reader = threading.Thread(target=lambda: frames.extend(utterance))
        reader.start()
        for n, digit in enumerate("123456", 1):  # each is a token, certain when the next one is there
            text.feed(digit)
            expected = n - 1 if n - 1 >= 4 else 0
            until(tts.engine, partial(came_to, lane, expected))
            for _ in range(3):
                tts.engine.call(lambda: None)
            assert lane.n_frames == expected
        utterance.cancel()
        reader.join()


def test_a_waiting_speech_costs_no_steps(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    step = tts.engine._step
    monkeypatch.setattr(tts.engine, "_step", lambda lanes: (steps.append(len(lanes)), step(lanes)))
    text = LiveText()
    with tts.utter(text, Voice(), options()) as utterance:
        reader = threading.Thread(target=utterance.finish)
        text.feed("One two")  # three letters' tokens at most
        reader.start()
        until(tts.engine, lambda: utterance._lane in tts.engine._lanes)
        n = len(steps)
        for _ in range(5):
            tts.engine.call(lambda: None)
        assert len(steps) == n
        with tts.utter(TEXTS[0], Voice(), options()) as other:  # goes on meanwhile
            other.finish()
        assert len(other.codes) == 12
        text.feed(" three four five six seven eight nine ten")
        text.finish()
        reader.join()
    assert len(utterance.codes) == 12


# -- iterables ---------------------------------------------------------------------------------------------------------


class Source:
    """Words that arrive one by one, each when the test lets it; counts what was taken."""

    def __init__(self, text: str) -> None:
        self.words = re.findall(r"\s*\S+", text)
        self.next = threading.Semaphore(0)
        self.n_taken = 0
        self.is_left = threading.Event()

    def __iter__(self) -> Iterator[str]:
        try:
            for word in self.words:
                self.next.acquire()
                self.n_taken += 1
                yield word
        finally:
            self.is_left.set()

    async def aiter(self) -> AsyncIterator[str]:
        try:
            for word in self.words:
                while not self.next.acquire(blocking=False):
                    await asyncio.sleep(0)
                self.n_taken += 1
                yield word
        finally:
            self.is_left.set()


WORDS = "One two three four five six seven eight nine ten eleven twelve."


def test_sound_comes_before_the_last_word_is_there(tts: TTS) -> None:
    expected = whole(tts, WORDS, Voice(), options())
    source = Source(WORDS)
    stream = tts.stream(source, Voice(), options())
    for _ in range(6):
        source.next.release()
    first = next(stream)
    assert first.shape == (1920,) and source.n_taken <= 6
    for _ in source.words:
        source.next.release()
    with pytest.raises(NoEndOfSpeech) as failure:
        for _ in stream:
            pass
    assert np.array_equal(failure.value.codes, expected) and source.is_left.wait(60)


def test_an_event_loop_gets_sound_before_the_last_word_is_there(tts: TTS) -> None:
    expected = whole(tts, WORDS, Voice(), options())

    async def main() -> NDArray[np.int32]:
        source = Source(WORDS)
        stream = tts.astream(source.aiter(), Voice(), options())
        for _ in range(6):
            source.next.release()
        assert len(await anext(stream)) == 1920 and source.n_taken <= 6
        for _ in source.words:
            source.next.release()
        try:
            async for _ in stream:
                pass
        except NoEndOfSpeech as failure:
            return failure.codes
        raise AssertionError("it ended")

    assert np.array_equal(asyncio.run(main()), expected)


def test_an_event_loop_takes_a_plain_iterable_too(tts: TTS) -> None:
    async def main() -> int:
        n = 0
        try:
            async for _ in tts.astream(iter(WORDS), Voice(), options()):
                n += 1
        except NoEndOfSpeech:
            return n
        raise AssertionError("it ended")

    assert asyncio.run(main()) == 12


def text_threads() -> int:
    return sum(thread.name == "live-text" for thread in threading.enumerate())


def test_closing_midway_frees_the_lane_and_the_thread(tts: TTS) -> None:
    source = Source(WORDS * 3)
    stream = tts.stream(source, Voice(), options(max_frames=400))
    for _ in range(8):
        source.next.release()
    next(stream)
    assert text_threads() == 1
    stream.close()  # type: ignore[attr-defined]
    until(tts.engine, lambda: not tts.engine._lanes)
    source.next.release()  # what waits inside the source ends with the next word
    assert source.is_left.wait(60) and source.n_taken <= 9
    while text_threads():
        gc.collect()


def test_leaving_an_event_loop_midway_frees_the_lane_and_the_task(tts: TTS) -> None:
    async def main() -> bool:
        source = Source(WORDS * 3)
        stream = tts.astream(source.aiter(), Voice(), options(max_frames=400))
        for _ in range(8):
            source.next.release()
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return source.is_left.is_set() and len(asyncio.all_tasks()) == 1

    assert asyncio.run(main())
    until(tts.engine, lambda: not tts.engine._lanes)


def test_cancelling_the_task_that_reads_frees_all(tts: TTS) -> None:
    async def main() -> bool:
        source, has_sound = Source(WORDS * 3), asyncio.Event()

        async def read() -> None:
            async for _ in tts.astream(source.aiter(), Voice(), options(max_frames=400)):
                has_sound.set()

        task = asyncio.create_task(read())
        for _ in range(8):
            source.next.release()
        await has_sound.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled() and source.is_left.is_set()

    assert asyncio.run(main())
    until(tts.engine, lambda: not tts.engine._lanes)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_what_the_source_raises_reaches_the_reader(tts: TTS) -> None:
    def source() -> Iterator[str]:
        yield "One two three four five six"
        raise ConnectionError("the line is down")

    with pytest.raises(ConnectionError, match="the line is down"):
        list(tts.stream(source(), Voice(), options()))
    with pytest.raises(ConnectionError, match="the line is down"):
        asyncio.run(anext(tts.astream(source(), Voice(), options())))


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], "no text"),
        (["  ", "\n"], "no text"),
        (["...", " !"], "nothing to pronounce"),
        (["One \ud800"], "surrogates"),
        ([b"One"], "must be strings, not bytes"),
        (["word " * 40_000], "too long for this model"),
    ],
)
def test_a_text_that_cannot_be_spoken_is_an_error_of_the_reader(tts: TTS, pieces: list[Any], message: str) -> None:
    with pytest.raises(TextError, match=message):
        list(tts.stream(pieces, Voice(), options()))

    async def read() -> None:
        async for _ in tts.astream(pieces, Voice(), options()):
            pass

    with pytest.raises(TextError, match=message):
        asyncio.run(read())


def test_a_text_is_spoken_once_and_not_fed_after_its_end(tts: TTS) -> None:
    text = LiveText()
    tts.utter(text, Voice(), options())
    with pytest.raises(UsageError, match="already being spoken"):
        tts.utter(text, Voice(), options())
    text.finish()
    text.finish()
    with pytest.raises(UsageError, match="already finished"):
        text.feed("more")


def test_a_text_may_be_there_before_its_speech(tts: TTS) -> None:
    text = LiveText()
    assert text.feed("Hello, ") and text.feed("world!")
    text.finish()
    with tts.utter(text, Voice(), options()) as utterance:
        utterance.finish()
    assert np.array_equal(utterance.codes, whole(tts, "Hello, world!", Voice(), options()))
    assert text.so_far == "Hello, world!"


def test_a_cancelled_speech_wants_no_more_text(tts: TTS) -> None:
    text = LiveText()
    utterance = tts.utter(text, Voice(), options())
    assert text.feed("Hello, ")
    utterance.cancel()
    assert not text.feed("world!")
    text.finish()
    assert list(utterance) == [] and utterance.cancelled


def test_closing_the_model_ends_a_waiting_speech(pair: Pair) -> None:
    tts = TTS(pair("q4_0", "f16", ends="never").talker, n_threads=1)
    errors: list[str] = []

    def read(utterance: Utterance) -> None:
        try:
            utterance.finish()
        except UsageError as error:
            errors.append(str(error))

    utterance = tts.utter(LiveText(), Voice(), options())
    reader = threading.Thread(target=read, args=(utterance,))
    reader.start()
    until(tts.engine, lambda: utterance._lane in tts.engine._lanes)
    tts.close()
    reader.join()
    assert errors == ["the model was closed while it was speaking"]


def test_cancels_at_random_moments_leave_nothing(tts: TTS) -> None:
    """Three threads feed, read and cancel; another speech is not changed."""
    expected = whole(tts, WORDS, Voice(), options())

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            text = LiveText()
            with tts.utter(text, Voice(), options(max_frames=400)) as utterance:
                reader = threading.Thread(target=utterance.finish)
                reader.start()
                for word in WORDS.split()[: 1 + rng.randrange(11)]:
                    text.feed(f"{word} ")
                    if rng.random() < 0.2:
                        tts.engine.call(lambda: None)
                if rng.random() < 0.3:
                    text.finish()
                utterance.cancel()
                reader.join()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    codes = [fed(tts, [WORDS], Voice(), options()) for _ in range(4)]
    for thread in threads:
        thread.join()
    assert all(np.array_equal(each, expected) for each in codes)
    until(tts.engine, lambda: not tts.engine._lanes)
