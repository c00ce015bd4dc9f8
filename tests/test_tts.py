"""Text in, audio out: seeds, options, streams, and several utterances at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import beginning
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, OptionError, SpeechOptions, TextError, Voice
from qwen3tts_gguf.errors import CodesError, ModelFileError
from qwen3tts_gguf.nets.sampling import TalkerSampler

TEXT = "Hello, world!"
FRAME = 1920


def options(**changes: Any) -> SpeechOptions:
    """Four frames of English with a seed."""
    return SpeechOptions(**{"seed": 1, "max_frames": 4, "language": "english", **changes})


@pytest.fixture(scope="module")
def single(pair: Callable[..., ConvertedPair]) -> TTS:
    """The tiny model on one thread, which waits for no other."""
    return TTS(pair().talker, n_threads=1)


@pytest.fixture(scope="module")
def ending(pair: Callable[..., ConvertedPair]) -> TTS:
    """The same with weights whose speech ends some ten frames in."""
    return TTS(pair(ends="soon").talker, n_threads=1)


@pytest.fixture(scope="module")
def voice(single: TTS) -> Voice:
    return Voice.from_audio(tiny.reference_clip(24_000), single, rate_hz=24_000)


def spoken(tts: TTS, text: str = TEXT, voice: Voice | None = None, **changes: Any) -> tuple[list[list[int]], int]:
    """Codes and seed of one utterance."""
    with tts.utter(text, voice, options(**changes)) as utterance:
        for _ in utterance:
            pass
    return utterance.codes.tolist(), utterance.seed


# -- one utterance -----------------------------------------------------------------------------------------------------


def test_a_stream_is_the_speech_frame_by_frame(ending: TTS, voice: Voice) -> None:
    frames = list(ending.stream(TEXT, voice, SpeechOptions(seed=1)))
    assert len(frames) > 2 and {len(frame) for frame in frames} == {FRAME}
    whole = ending.speak(TEXT, voice, SpeechOptions(seed=1))
    assert whole.dtype == np.float32 and np.abs(whole).max() <= 1 and np.std(whole) > 0.001
    assert np.array_equal(np.concatenate(frames), whole)


def test_the_codes_decode_to_the_speech(single: TTS) -> None:
    with single.utter(TEXT, Voice(), options()) as utterance:  # without a reference whose sound it goes on from
        samples = np.concatenate(list(utterance))
    assert utterance.codes.shape == (4, 16) and utterance.codes.dtype == np.int32
    assert np.array_equal(single.decode(utterance.codes), samples)


def test_the_first_frame_comes_before_the_second_is_made(single: TTS) -> None:
    with single.utter(TEXT, options=options()) as utterance:
        frames = iter(utterance)
        next(frames)
        assert len(utterance.codes) == 1 and utterance.seconds == pytest.approx(0.08)


@pytest.mark.parametrize("max_frames", [1, 3])
def test_max_frames_is_honoured(single: TTS, max_frames: int) -> None:
    with single.utter(TEXT, options=options(max_frames=max_frames)) as utterance:
        assert len(list(utterance)) == max_frames
    assert utterance.max_frames == max_frames and not utterance.ended
    assert utterance.runaway == f"its budget of {max_frames} frames is used up"


def test_the_end_of_speech_ends_it(single: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([5, 6, single.vocabulary.codec.eos])
    monkeypatch.setattr(TalkerSampler, "choose", lambda _sampler, _logits: next(codes))
    with single.utter(TEXT, options=options(max_frames=50)) as utterance:
        assert len(list(utterance)) == 2
    assert utterance.ended and utterance.runaway is None and utterance.codes[:, 0].tolist() == [5, 6]


def test_without_max_frames_the_text_sets_a_budget(single: TTS) -> None:
    with (
        single.utter("Hi.", options=SpeechOptions()) as short,
        single.utter("word " * 60, options=SpeechOptions()) as long,
    ):
        assert 25 < short.max_frames < long.max_frames <= single.defaults.max_new_tokens


# -- what decides ------------------------------------------------------------------------------------------------------


def test_the_seed_decides(single: TTS) -> None:
    first = spoken(single)
    assert spoken(single) == first and first[1] == 1
    assert spoken(single, seed=2)[0] != first[0]


def test_a_drawn_seed_is_reported_and_repeats_the_speech(single: TTS) -> None:
    codes, seed = spoken(single, seed=None)
    assert spoken(single, seed=seed) == (codes, seed)
    assert spoken(single, seed=None)[1] != seed


def test_greedy_speech_has_no_seed_in_it(single: TTS) -> None:
    greedy = spoken(single, greedy=True, seed=1)[0]
    assert spoken(single, greedy=True, seed=2)[0] == greedy
    assert spoken(single, top_k=1, sub_top_k=1, seed=3)[0] == greedy


def test_greedy_speech_remembers_no_earlier_draw(single: TTS) -> None:
    greedy = spoken(single, greedy=True)[0]
    spoken(single, top_k=0, sub_top_k=0, sub_temperature=5.0)
    assert spoken(single, greedy=True)[0] == greedy


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 5.0},
        {"top_k": 1},
        {"top_p": 1e-6},
        {"sub_temperature": 5.0},
        {"sub_top_k": 1},
        {"sub_top_p": 1e-6},
        {"sub_repetition_penalty": 100.0},
        {"language": "chinese"},
        {"language": "auto"},
        {"layout": "stepwise"},
    ],
    ids=str,
)
def test_every_option_changes_the_speech(single: TTS, changes: dict[str, Any]) -> None:
    assert spoken(single, **changes)[0] != spoken(single)[0]


def test_the_repetition_penalty_keeps_code_0_from_repeating(single: TTS) -> None:
    codes = spoken(single, greedy=True, repetition_penalty=1e6, max_frames=6)[0]
    assert len({frame[0] for frame in codes}) == 6


def test_the_voice_changes_the_speech(single: TTS, voice: Voice) -> None:
    other = Voice(np.roll(voice.speaker, 1))
    assert len({str(spoken(single, voice=each)[0]) for each in (None, voice, other)}) == 3


def test_space_around_the_text_does_not_change_it(single: TTS) -> None:
    assert spoken(single, f"\n  {TEXT}\t")[0] == spoken(single)[0]


def test_the_stepwise_layout_speaks_short_and_long_texts(single: TTS) -> None:
    for text in ("a", "One two three four five six seven."):  # used up at once, and not in four frames
        codes = spoken(single, text, layout="stepwise")[0]
        assert len(codes) == 4 and spoken(single, text, layout="stepwise")[0] == codes


@pytest.mark.parametrize("type", ["f32", "q8_0", "q4_k_m", "q4_0"])
def test_the_speech_does_not_depend_on_the_number_of_threads(pair: Callable[..., ConvertedPair], type: str) -> None:
    """Nor does the voice it is spoken with: to the last bit."""
    speeches = []
    for n_threads in (1, 2, 3):
        tts = TTS(pair(type, "f32" if type == "f32" else "f16").talker, n_threads=n_threads)
        clip = tiny.reference_clip(24_000)
        voice = Voice.from_audio(clip, tts, rate_hz=24_000, transcript="The keeper of the lighthouse.")
        with tts.utter(f"{TEXT} " * 200, voice, options()) as utterance:  # a prompt of several batches
            utterance.finish()
        speeches.append((utterance.codes, utterance.samples))
    for codes, samples in speeches[1:]:
        assert np.array_equal(codes, speeches[0][0]) and np.array_equal(samples, speeches[0][1])


@pytest.mark.parametrize("layout", ["whole", "stepwise"])
def test_the_beginning_of_a_prompt_is_computed_once_per_voice(single: TTS, voice: Voice, layout: str) -> None:
    in_context = Voice.from_audio(
        tiny.reference_clip(24_000), single, rate_hz=24_000, transcript="The keeper of the lighthouse waits."
    )

    def first_frame(text: str, voice: Voice) -> tuple[int, NDArray[np.float32]]:
        with single.utter(text, voice, options(max_frames=1, layout=layout)) as utterance:
            utterance.finish()
        return utterance.timings.prompt_reused, utterance.samples

    first_frame(TEXT, voice)
    for other in (in_context, voice):  # each is new after the other
        _, expected = first_frame(TEXT, other)
        first_frame("Something else.", other)
        n_reused, samples = first_frame(TEXT, other)
        assert n_reused > 7 and np.array_equal(samples, expected)


def test_the_speech_does_not_depend_on_earlier_speech(single: TTS, voice: Voice) -> None:
    expected = beginning(single, TEXT, voice, options())
    for text in (f"{TEXT} " * 60, "Hi."):  # other sizes of memory
        beginning(single, text, None, options(seed=3))
        assert np.array_equal(beginning(single, TEXT, voice, options()), expected)


# -- several at a time -------------------------------------------------------------------------------------------------


def test_two_interleaved_utterances_equal_the_separate_ones(single: TTS, voice: Voice) -> None:
    alone = [beginning(single, TEXT, voice, options()), beginning(single, "Another one.", None, options(seed=9))]
    with (
        single.utter(TEXT, voice, options()) as first,
        single.utter("Another one.", None, options(seed=9)) as second,
    ):
        frames = list(zip(first, second, strict=True))
    for i in range(2):
        assert np.array_equal(np.concatenate([pair[i] for pair in frames]), alone[i])


def test_eight_threads_that_share_a_model_speak_as_each_does_alone(ending: TTS) -> None:
    texts = ["One.", "Two, three.", "Four five six.", "你好。", "Five?", "Six!", "Seven or eight.", "The eighth."]
    alone = [ending.speak(text, options=SpeechOptions(seed=i)) for i, text in enumerate(texts)]
    found: dict[int, NDArray[np.float32]] = {}
    start = threading.Barrier(len(texts))

    def say(i: int) -> None:
        start.wait()
        found[i] = ending.speak(texts[i], options=SpeechOptions(seed=i))

    threads = [threading.Thread(target=say, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, expected in enumerate(alone):
        assert np.array_equal(found[i], expected)


# A race in native code ends the process, so another one tries it.
LISTENERS = """
import sys, threading
import numpy as np, tiny
from qwen3tts_gguf import TTS, SpeechOptions, Voice

tts = TTS(sys.argv[1], n_threads=1)
clips = [tiny.reference_clip(24_000), tiny.reference_clip(23_000)[::-1].copy()]
words, options = "the keeper speaks", SpeechOptions(seed=1)

def listen(clip):
    return Voice.from_audio(clip, tts, rate_hz=24_000, transcript=words)

def listen_on(clip, expected):
    for _ in range(12):
        voice = listen(clip)
        results.append(np.array_equal(voice.speaker, expected.speaker) and np.array_equal(voice.codes, expected.codes))

def speak_on():
    for _ in range(10):
        results.append(np.array_equal(tts.speak("Hello.", options=options), speech))

results, speech = [], tts.speak("Hello.", options=options)
threads = [threading.Thread(target=listen_on, args=(clip, listen(clip))) for clip in clips]
threads.append(threading.Thread(target=speak_on))
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(results), all(results))
"""


def test_threads_listen_to_clips_while_another_speaks(pair: Callable[..., ConvertedPair]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", LISTENERS, str(pair(ends="soon").talker)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout) == (0, "34 True\n")


def test_an_abandoned_stream_leaves_nothing_behind(single: TTS) -> None:
    expected = beginning(single, TEXT, None, options())
    stream = single.stream("Something else.", options=options(seed=5))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert np.array_equal(beginning(single, TEXT, None, options()), expected)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("temperature", "sub_temperature") for value in (0, 0.0, -1, float("inf"))),
        *((name, value) for name in ("repetition_penalty", "sub_repetition_penalty") for value in (0, -0.5)),
        *((name, value) for name in ("top_p", "sub_top_p") for value in (0, -0.1, 1.01)),
        *((name, -1) for name in ("top_k", "sub_top_k", "seed", "retries")),
        *((name, float("nan")) for name in ("temperature", "top_p", "sub_top_p", "repetition_penalty")),
        ("max_frames", 0),
        ("max_frames", -5),
        ("layout", "sideways"),
    ],
)
def test_an_option_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"\b{name}\b") as caught:
        SpeechOptions(**{name: value})
    assert str(value) in str(caught.value)


def test_a_temperature_of_zero_points_to_greedy() -> None:
    with pytest.raises(OptionError, match="greedy"):
        SpeechOptions(temperature=0)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_a_text_with_nothing_to_speak_is_refused(single: TTS, text: str) -> None:
    with pytest.raises(TextError, match="no text"):
        single.speak(text)


def test_text_that_is_no_unicode_is_refused(single: TTS) -> None:
    with pytest.raises(TextError, match="surrogates"):
        single.speak("caf\udce9")


def test_an_unknown_language_is_refused_before_speech_starts(single: TTS) -> None:
    with pytest.raises(OptionError, match="unknown language 'klingon'"):
        single.utter(TEXT, options=options(language="klingon"))


def test_a_voice_of_another_size_is_refused(single: TTS, pair: Callable[..., ConvertedPair]) -> None:
    large = TTS(pair(size="tiny-1.7b").talker, n_threads=1)
    other = Voice.from_audio(tiny.reference_clip(24_000), large, rate_hz=24_000)
    with pytest.raises(OptionError, match=r"192 values, this model takes 128.*make the voice again"):
        single.speak(TEXT, other)


def test_a_model_without_a_speaker_encoder_cannot_clone(pair: Callable[..., ConvertedPair]) -> None:
    presets = TTS(pair(model_type="custom_voice").talker, n_threads=1)
    with pytest.raises(OptionError, match="use a Base model"):
        Voice.from_audio(tiny.reference_clip(24_000), presets, rate_hz=24_000)
    assert len(spoken(presets, voice=Voice.preset("Ryan"), max_frames=1)[0]) == 1


def test_more_frames_than_the_context_holds_are_refused(single: TTS) -> None:
    """32,768 positions: refused before the first frame, not an hour later."""
    with pytest.raises(OptionError, match="max_frames"):
        single.utter(TEXT, options=options(max_frames=1 << 20)).close()


def test_codes_of_another_shape_are_refused(single: TTS) -> None:
    with pytest.raises(CodesError):
        single.decode(np.zeros((3, 4), np.int32))


@pytest.mark.parametrize("n_threads", [-1])
def test_a_number_of_threads_that_cannot_be_is_refused(pair: Callable[..., ConvertedPair], n_threads: int) -> None:
    with pytest.raises(OptionError, match="n_threads"):
        TTS(pair().talker, n_threads=n_threads)


def test_a_path_may_be_text_or_a_folder(pair: Callable[..., ConvertedPair]) -> None:
    by_folder = TTS(str(pair().talker.parent), n_threads=1)
    assert by_folder.name == "Tiny Base" and by_folder.sample_rate_hz == 24_000
    with pytest.raises(ModelFileError, match="no such file"):
        TTS("absent.gguf")
