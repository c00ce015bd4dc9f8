"""The engine: many speeches at once, each as if it were alone; and callers who hold it wrong."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest
import tiny
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, OptionError, SpeechOptions, UsageError, Utterance, Voice
from qwen3tts_gguf.engine.mailbox import MOST_AHEAD
from qwen3tts_gguf.nets.talker import Talker

Pair = Callable[..., ConvertedPair]
TEXT = "Hello, world!"
ENDLESS = SpeechOptions(seed=1, max_frames=400, endless=True)


@dataclass(frozen=True)
class Job:
    text: str
    in_context: bool
    options: SpeechOptions


JOBS = (
    Job("One.", False, SpeechOptions(seed=1, max_frames=9)),
    Job("Two and three, and quite a few words more than that.", True, SpeechOptions(seed=2, max_frames=14)),
    Job("Four?", False, SpeechOptions(seed=3, max_frames=5, greedy=True)),
    Job("Five, six, seven! " * 12, False, SpeechOptions(seed=4, max_frames=11, temperature=1.4, top_k=7)),
    Job("你好。", False, SpeechOptions(seed=5, max_frames=8, top_p=0.6, sub_top_p=0.7, language="chinese")),
    Job("Eight is the next one.", True, SpeechOptions(seed=6, max_frames=12, layout="stepwise")),
    Job("Nine.", False, SpeechOptions(seed=7, max_frames=16, sub_top_k=0, sub_repetition_penalty=1.3)),
    Job("Ten, at last.", False, SpeechOptions(seed=8, max_frames=7, repetition_penalty=1.2, sub_temperature=0.5)),
)


def load(pair: Pair, type: str = "q4_0", ends: str | None = "never", **arguments: Any) -> TTS:
    return TTS(pair(type, "f32" if type == "f32" else "f16", ends=ends).talker, **arguments)


def in_context(tts: TTS) -> Voice:
    return Voice.from_audio(tiny.reference_clip(24_000), tts, rate_hz=24_000, transcript="The keeper speaks.")


def generate(tts: TTS, job: Job, voice: Voice) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    with tts.utter(job.text, voice if job.in_context else None, job.options) as utterance:
        utterance.finish()
    return utterance.codes, utterance.samples


@pytest.fixture(scope="module")
def tts(pair: Pair) -> Iterator[TTS]:
    """Speech that does not end, four lanes, two threads."""
    with load(pair, n_threads=2, n_lanes=4) as tts:
        yield tts


# -- other speeches at the same time -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(pair: Pair) -> Callable[[str], list[tuple[NDArray[np.int32], NDArray[np.float32]]]]:
    """alone(type) -> codes and samples of each job, one after the other, one lane, one thread"""
    known: dict[str, list[tuple[NDArray[np.int32], NDArray[np.float32]]]] = {}

    def make(type: str) -> list[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        if type not in known:
            with load(pair, type, n_threads=1) as tts:
                voice = in_context(tts)
                known[type] = [generate(tts, job, voice) for job in JOBS]
        return known[type]

    return make


@pytest.mark.parametrize(
    ("type", "n_lanes", "n_threads"),
    [
        *((type, 4, 2) for type in ("f32", "f16", "q8_0", "q6_k", "q4_k_m", "q4_0")),
        *((type, n_lanes, 3) for type in ("q8_0", "q4_0") for n_lanes in (1, 2, 8)),
    ],
)
def test_other_speeches_never_change_a_speech(
    pair: Pair, alone: Callable[[str], Any], type: str, n_lanes: int, n_threads: int
) -> None:
    """Codes and samples, bit for bit; jobs start when others are at a random frame."""
    expected = alone(type)
    rng = random.Random(f"{type} {n_lanes}")
    with load(pair, type, n_threads=n_threads, n_lanes=n_lanes) as tts:
        voice = in_context(tts)
        found: dict[int, tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
        order = list(range(len(JOBS)))
        rng.shuffle(order)

        def work(jobs: list[int]) -> None:
            for i in jobs:
                found[i] = generate(tts, JOBS[i], voice)

        readers = [threading.Thread(target=work, args=(order[n::4],)) for n in range(4)]
        for reader in readers:
            with tts.utter(TEXT, None, SpeechOptions(seed=9, max_frames=1 + rng.randrange(6))) as delay:
                delay.finish()
            reader.start()
        for reader in readers:
            reader.join()
    for i, (codes, samples) in enumerate(expected):
        assert np.array_equal(found[i][0], codes) and np.array_equal(found[i][1], samples), JOBS[i]


def test_more_open_speeches_than_lanes_take_turns(pair: Pair) -> None:
    with load(pair, n_threads=1, n_lanes=2) as tts:
        options = [SpeechOptions(seed=seed, max_frames=4) for seed in range(6)]
        alone = [tts.utter(TEXT, None, each) for each in options]
        for utterance in alone:
            utterance.finish()
        together = [tts.utter(TEXT, None, each) for each in options]
        for _ in zip(*together, strict=True):
            pass
    for single, shared in zip(alone, together, strict=True):
        assert len(shared.codes) == 4 and np.array_equal(shared.samples, single.samples)


def test_the_budget_does_not_change_what_comes_before_it(tts: TTS) -> None:
    long, short = (generate(tts, Job(TEXT, False, SpeechOptions(seed=3, max_frames=n)), Voice())[0] for n in (30, 8))
    assert np.array_equal(long[:8], short)


def test_cancels_at_random_moments_disturb_no_other_speech(pair: Pair) -> None:
    with load(pair, n_threads=2, n_lanes=3) as tts:
        job = Job("Four, five and six.", False, SpeechOptions(seed=11, max_frames=12))
        codes, samples = generate(tts, job, Voice())
        equal: list[bool] = []
        stopped: list[int] = []

        def read_whole() -> None:
            for _ in range(6):
                found = generate(tts, job, Voice())
                equal.append(np.array_equal(found[0], codes) and np.array_equal(found[1], samples))

        def read_and_leave(seed: int) -> None:
            rng = random.Random(seed)
            for i in range(12):
                utterance = tts.utter("word " * (1 + rng.randrange(200)), None, ENDLESS)
                canceller = threading.Thread(target=utterance.cancel)
                frames = iter(utterance)
                for _ in range(rng.randrange(4)):
                    next(frames)
                canceller.start()
                stopped.append(sum(1 for _ in frames))
                canceller.join()
                assert utterance.cancelled, i

        threads = [
            threading.Thread(target=read_whole),
            *(threading.Thread(target=read_and_leave, args=(n,)) for n in (1, 2)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert equal == [True] * 6 and len(stopped) == 24
        assert np.array_equal(generate(tts, job, Voice())[1], samples)


# -- what is computed when ---------------------------------------------------------------------------------------------


def test_nothing_is_computed_before_the_first_read(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    monkeypatch.setattr(Talker, "open", lambda talker: opened.append(talker))
    utterance = tts.utter(TEXT, None, ENDLESS)
    frames = iter(utterance)
    tts.engine.call(lambda: None)  # the engine has looked at its lanes since
    assert not opened and len(utterance.codes) == 0
    del frames
    utterance.close()


def test_the_engine_pauses_a_speech_whose_reader_is_far_behind(tts: TTS) -> None:
    with tts.utter(TEXT, None, ENDLESS) as slow:
        frames = iter(slow)
        next(frames)
        while not slow._lane.mailbox.is_full:
            tts.engine.call(lambda: None)
        with tts.utter(TEXT, None, SpeechOptions(seed=2, max_frames=40)) as other:  # goes on meanwhile
            other.finish()
        assert slow._lane.n_frames <= 1 + MOST_AHEAD + 2  # read, waiting, under way
        for _ in range(MOST_AHEAD):
            next(frames)
        next(frames)  # it went on


def test_a_partial_read_can_be_finished(tts: TTS) -> None:
    options = SpeechOptions(seed=4, max_frames=9)
    with tts.utter(TEXT, None, options) as whole:
        whole.finish()
    with tts.utter(TEXT, None, options) as partly:
        frames = iter(partly)
        next(frames)
        next(frames)
        partly.finish()
        assert list(frames) == []
    assert np.array_equal(partly.samples, whole.samples) and partly.runaway == whole.runaway


# -- cancelling and closing --------------------------------------------------------------------------------------------


def test_a_cancelled_speech_ends_without_an_error(tts: TTS) -> None:
    utterance = tts.utter(TEXT, None, ENDLESS)
    frames = iter(utterance)
    next(frames)
    utterance.cancel()
    assert list(frames) == [] and utterance.cancelled and not utterance.ended and utterance.runaway is None
    assert len(utterance.codes) == 1


def test_a_speech_can_be_cancelled_before_it_is_read(tts: TTS) -> None:
    utterance = tts.utter(TEXT, None, ENDLESS)
    utterance.cancel()
    assert list(utterance) == [] and utterance.cancelled


def test_a_cancel_inside_a_prompt_takes_effect_between_its_slices(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    utterance = tts.utter("word " * 2000, None, ENDLESS)
    slices: list[int] = []
    begin = tts.engine._prefill

    def prefill(lane: Any) -> None:
        begin(lane)
        slices.append(len(lane.slices))
        if len(slices) == 3:
            utterance.cancel()

    monkeypatch.setattr(tts.engine, "_prefill", prefill)
    assert list(utterance) == [] and utterance.cancelled
    assert len(slices) == 3 and slices[-1] > 10


def test_speaking_after_a_cancel_is_not_retried(tts: TTS) -> None:
    attempts = []
    for utterance in tts.attempts(TEXT, None, ENDLESS):
        attempts.append(utterance)
        next(iter(utterance))
        utterance.cancel()
    assert len(attempts) == 1


def test_closing_the_model_ends_speeches_with_an_error(pair: Pair) -> None:
    tts = load(pair, n_threads=2, n_lanes=2)
    read, reading = tts.utter(TEXT, None, ENDLESS), tts.utter(TEXT, None, ENDLESS)
    next(iter(read))
    frames, errors = iter(reading), []
    next(frames)

    def read_on() -> None:
        try:
            for _ in frames:
                pass
        except UsageError as error:
            errors.append(str(error))

    reader = threading.Thread(target=read_on)
    reader.start()
    tts.close()
    reader.join()
    tts.close()  # twice is fine
    assert errors == ["the model was closed while it was speaking"]
    for use in (lambda: tts.speak(TEXT), lambda: tts.decode(np.zeros((1, 16), np.int32)), lambda: tts.utter(TEXT)):
        with pytest.raises(UsageError, match="the model is closed: load it again"):
            use()


def test_an_open_utterance_keeps_its_model(pair: Pair) -> None:
    tts = load(pair, n_threads=1)
    utterance = tts.utter(TEXT, None, SpeechOptions(seed=1, max_frames=5))
    frames = iter(utterance)
    next(frames)
    del tts
    gc.collect()
    assert len(list(frames)) == 4


def test_a_model_without_references_stops_its_threads(pair: Pair) -> None:
    before = set(threading.enumerate())
    tts = load(pair, n_threads=2)
    next(iter(tts.utter(TEXT, None, ENDLESS)))
    assert set(threading.enumerate()) - before
    del tts
    gc.collect()
    assert set(threading.enumerate()) <= before  # of which others may have ended meanwhile


@pytest.mark.parametrize("what", ["start", "call"])
def test_closing_between_a_check_and_a_start_leaves_no_caller_waiting(pair: Pair, what: str) -> None:
    tts = load(pair, n_threads=1)
    engine, lane = tts.engine, tts.utter(TEXT, None, ENDLESS)._lane
    refused: list[str] = []

    def use() -> None:
        try:
            engine.start(lane) if what == "start" else engine.call(lambda: None)
            lane.mailbox.take()
        except UsageError as error:
            refused.append(str(error))

    user = threading.Thread(target=use, daemon=True)
    with engine._changed:
        user.start()
        while what not in {frame.name for frame in traceback.extract_stack(sys._current_frames().get(user.ident))}:
            pass  # until it waits for the lock
        engine._closing = True
        engine._changed.notify_all()
    engine._thread.join()
    user.join(60)
    assert refused == ["the model is closed: load it again"]


# -- holding it wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [iter, Utterance.pieces, Utterance.__aiter__])
def test_a_second_reader_is_refused(tts: TTS, again: Callable[[Utterance], object]) -> None:
    with tts.utter(TEXT, None, SpeechOptions(seed=1, max_frames=2)) as utterance:
        assert len(list(utterance)) == 2
        with pytest.raises(UsageError, match="read already: make a new one with the same seed"):
            again(utterance)


def test_two_threads_cannot_read_one_speech(tts: TTS) -> None:
    with tts.utter(TEXT, None, ENDLESS) as utterance:
        frames = iter(utterance)
        next(frames)
        with utterance._is_reading, pytest.raises(UsageError, match="another thread is reading"):
            utterance.finish()


def test_a_path_instead_of_a_voice_gets_a_hint(tts: TTS) -> None:
    with pytest.raises(OptionError, match=r"not 'anna\.voice'.*Voice\.load"):
        tts.speak(TEXT, "anna.voice")  # type: ignore[arg-type]


@pytest.mark.parametrize("n_lanes", [0, -1])
def test_a_number_of_lanes_that_cannot_be_is_refused(pair: Pair, n_lanes: int) -> None:
    with pytest.raises(OptionError, match="n_lanes"):
        load(pair, n_lanes=n_lanes)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_after_loading_is_refused_with_a_sentence(tts: TTS) -> None:
    def child(pipe: Any) -> None:
        try:
            tts.speak(TEXT)
        except UsageError as error:
            pipe.send(str(error))

    ours, theirs = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, from Python 3.12 on
        process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        process.start()
    assert ours.poll(60)
    assert "before this process was forked" in ours.recv()
    process.join()
    assert process.exitcode == 0


def test_the_process_ends_while_a_speech_is_being_made(pair: Pair) -> None:
    code = (
        "import sys; from qwen3tts_gguf import TTS, SpeechOptions\n"
        "tts = TTS(sys.argv[1], n_threads=2)\n"
        "frames = iter(tts.utter('Hello.', options=SpeechOptions(seed=1, max_frames=400, endless=True)))\n"
        "next(frames); print('read')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", code, str(pair("q4_0", "f16", ends="never").talker)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "read\n", "")


# -- event loops -------------------------------------------------------------------------------------------------------


def test_an_event_loop_reads_several_speeches_at_once(tts: TTS) -> None:
    options = [SpeechOptions(seed=seed, max_frames=6) for seed in range(3)]
    expected = [generate(tts, Job(TEXT, False, each), Voice())[1] for each in options]

    async def read(each: SpeechOptions) -> NDArray[np.float32]:
        with tts.utter(TEXT, None, each) as utterance:
            return np.concatenate([samples async for samples in utterance])

    async def main() -> list[NDArray[np.float32]]:
        return await asyncio.gather(*map(read, options))

    for found, samples in zip(asyncio.run(main()), expected, strict=True):
        assert np.array_equal(found, samples)


def test_leaving_an_async_loop_cancels_the_speech(tts: TTS) -> None:
    async def main() -> int:
        stream = tts.astream(TEXT, None, ENDLESS)
        async for samples in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return len(samples)
        return 0

    assert asyncio.run(main()) == 1920
    for _ in range(2):  # the first may run before the lane is retired
        tts.engine.call(lambda: None)
    assert not tts.engine._lanes


def test_a_loop_that_is_closed_midway_harms_no_other_speech(pair: Pair) -> None:
    with load(pair, n_threads=2, n_lanes=2) as tts:
        loop = asyncio.new_event_loop()
        abandoned = tts.utter(TEXT, None, ENDLESS)
        frames = aiter(abandoned)
        loop.run_until_complete(anext(frames))
        loop.close()  # without closing `frames`: the engine still has something to report to it
        with tts.utter(TEXT, None, SpeechOptions(seed=2, max_frames=12)) as other:
            other.finish()
        assert len(other.codes) == 12
        abandoned.close()


# -- growth ------------------------------------------------------------------------------------------------------------


_BURSTS = """
import sys, threading
import psutil
from qwen3tts_gguf import TTS, SpeechOptions

process = psutil.Process()
tts = TTS(sys.argv[1], n_threads=1, n_lanes=4)

def burst():
    utterances = [tts.utter("word " * 300, None, SpeechOptions(seed=i, max_frames=2)) for i in range(24)]
    readers = [threading.Thread(target=utterance.finish) for utterance in utterances]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

def rss_after_burst():
    burst()
    return process.memory_info().rss

early = [rss_after_burst() for _ in range(4)]
threads, files = process.num_threads(), process.num_fds()
print(max(early), min(rss_after_burst() for _ in range(4)))  # malloc keeps now more, now less of what a burst frees
for _ in range(20_000):  # a thread that was joined takes a moment to leave the system
    if process.num_threads() <= threads:
        break
print(threads, process.num_threads())
print(files, process.num_fds())
"""


def test_a_burst_of_long_speeches_leaves_memory_and_threads_as_they_were(pair: Pair) -> None:
    """In a process of its own, as others' threads and memory come and go."""
    program = [sys.executable, "-c", _BURSTS, str(pair("q4_0", "f16", ends="never").talker)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    rss, threads, files = ([int(number) for number in line.split()] for line in done.stdout.splitlines())
    assert rss[1] < 1.1 * rss[0] and threads[1] <= threads[0] and files[1] == files[0]


def test_sixty_different_top_k_cost_no_memory(pair: Pair) -> None:
    process = psutil.Process()
    with load(pair, n_threads=1) as tts:

        def speak(top_k: int) -> None:
            options = SpeechOptions(seed=1, max_frames=2, top_k=top_k, sub_top_k=top_k)
            with tts.utter(TEXT, None, options) as utterance:
                utterance.finish()

        for top_k in (0, 1, 64, 65, *range(2, 32)):  # memory given back after loading is taken again
            speak(top_k)
        levels = []
        for top_k in range(32, 92):
            speak(top_k)
            levels.append(process.memory_info().rss)
    assert min(levels[45:]) < max(levels[:15]) + (8 << 20)  # malloc keeps now more, now less
