"""Speech that does not end: how it is noticed, retried, given up, and reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import test_cli
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, NoEndOfSpeech, SpeechOptions, Voice
from qwen3tts_gguf.model import nano
from qwen3tts_gguf.nets.sampling import TalkerSampler, next_seed
from qwen3tts_gguf.speech.runaway import STRETCH, SpeechWatch, frame_budget, n_spelled

Pair = Callable[..., ConvertedPair]
TEXT = "Hello."
FRAME = 1920
SOUND = np.full(FRAME, 0.1, np.float32)
HUSH = np.full(FRAME, 1e-4, np.float32)
TIGHT = 5
"""Frames, which are sometimes enough for the model that ends soon."""

run = test_cli.run


@pytest.fixture(scope="module")
def never(pair: Pair) -> TTS:
    return TTS(pair(ends="never").talker, n_threads=1)


@pytest.fixture(scope="module")
def soon(pair: Pair) -> TTS:
    return TTS(pair(ends="soon").talker, n_threads=1)


@pytest.fixture(scope="module")
def failing(soon: TTS) -> int:
    """A seed with which `TIGHT` frames are not enough, while they are with the next one."""

    def ends(seed: int) -> bool:
        with soon.utter(TEXT, options=SpeechOptions(seed=seed, max_frames=TIGHT)) as utterance:
            utterance.finish()
        return utterance.ended

    return next(seed for seed in range(100) if not ends(seed) and ends(next_seed(seed)))


# -- noticing ----------------------------------------------------------------------------------------------------------


def first_complaint(codes: list[int], samples: list[NDArray[np.float32]] | None = None) -> tuple[int, str] | None:
    """The frame at which something is wrong, and what."""
    watch = SpeechWatch()
    for i, code in enumerate(codes):
        complaint = watch.check(code, SOUND if samples is None else samples[i])
        if complaint:
            return i + 1, complaint
    return None


def speech_codes(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 2048, n).tolist()


@pytest.mark.parametrize("period", [1, 2, 7, 15])
def test_codes_that_go_round_are_noticed_after_six_seconds(period: int) -> None:
    spoken = speech_codes(200)
    frame, complaint = first_complaint([*spoken, *speech_codes(period, seed=1) * 100]) or (0, "")
    assert 200 < frame <= 200 + STRETCH + period and complaint == "codes that repeat in a loop"


def test_a_stray_code_does_not_hide_that_they_go_round() -> None:
    codes = speech_codes(4) * 50
    codes[::37] = [1] * len(codes[::37])
    assert first_complaint(codes)


def test_endless_silence_is_noticed_whatever_its_codes() -> None:
    loud, quiet = [SOUND] * 100, [HUSH] * 100
    assert first_complaint(speech_codes(200), loud + quiet) == (100 + STRETCH, "silence that does not end")
    assert first_complaint(speech_codes(200), quiet + loud) == (STRETCH, "silence that does not end")


@pytest.mark.parametrize("pause_frames", [12, 38, 62])  # a comma's, a paragraph's, and 5 s
def test_a_pause_is_no_silence_without_end(pause_frames: int) -> None:
    """Its codes may all be the same."""
    codes = [*speech_codes(60), *[7] * pause_frames, *speech_codes(60, seed=1)]
    assert first_complaint(codes, [*[SOUND] * 60, *[HUSH] * pause_frames, *[SOUND] * 60]) is None


def test_a_quiet_voice_is_no_silence() -> None:
    whisper = [SOUND * 0.02, SOUND * 0.001] * 100  # -54 dB, and pauses
    assert first_complaint(speech_codes(200), whisper) is None


@pytest.mark.parametrize("frames_a_round", [3.7, 6.4, 11.3])
def test_a_text_that_repeats_itself_is_no_loop(frames_a_round: float) -> None:
    """Even spoken alike each time: eight codes per round, which does not last a whole number of frames."""
    phases = (np.arange(300) % frames_a_round) / frames_a_round
    assert first_complaint((phases * 8).astype(int).tolist()) is None


def test_different_speech_is_left_alone() -> None:
    assert first_complaint(speech_codes(2000)) is None


def test_a_loop_ends_an_utterance_before_its_budget(never: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TalkerSampler, "choose", lambda _sampler, _logits: 7)
    with never.utter(TEXT, options=SpeechOptions(seed=1, max_frames=200)) as utterance:
        utterance.finish()
    assert len(utterance.codes) == STRETCH and not utterance.ended
    with pytest.raises(NoEndOfSpeech, match=r"after 6\.0 s with seed 1: codes that repeat in a loop"):
        utterance.require_end()


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_a_whole_speech_is_stopped_where_a_stream_is(never: TTS, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    def check(watch: SpeechWatch, code0: int, _samples: NDArray[np.float32]) -> str | None:
        watch._codes.append(code0)
        return "enough" if len(watch._codes) == n else None

    monkeypatch.setattr(SpeechWatch, "check", check)
    with never.utter(TEXT, options=SpeechOptions(seed=1, max_frames=9)) as stream:
        frames = list(stream)
    with never.utter(TEXT, options=SpeechOptions(seed=1, max_frames=9)) as whole:
        whole.finish()
    assert len(frames) == n and stream.runaway == whole.runaway == "enough"
    assert np.array_equal(whole.codes, stream.codes) and np.array_equal(whole.samples, np.concatenate(frames))


def test_a_benchmark_is_not_stopped(never: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TalkerSampler, "choose", lambda _sampler, _logits: 7)
    with never.utter(TEXT, options=SpeechOptions(seed=1, max_frames=STRETCH + 5, endless=True)) as utterance:
        assert len(list(utterance)) == STRETCH + 5


# -- the library -------------------------------------------------------------------------------------------------------


def test_speech_without_end_is_an_error_that_has_the_speech_so_far(never: TTS) -> None:
    with pytest.raises(NoEndOfSpeech) as caught:
        never.speak(TEXT, Voice(), SpeechOptions(seed=1, max_frames=3, retries=1))
    error = caught.value
    assert error.seed == next_seed(1)  # of the last attempt
    assert error.samples.shape == (3 * FRAME,) and error.samples.dtype == np.float32
    assert error.codes.shape == (3, 16) and np.array_equal(never.decode(error.codes), error.samples)
    assert str(error) == (
        f"the speech did not end after 0.2 s with seed {next_seed(1)}: its budget of 3 frames is used up: "
        "try another `seed`, other words or a larger `max_frames`"
    )


def test_without_options_the_text_sets_the_budget(never: TTS) -> None:
    n = frame_budget(len(never._prompts.text_ids(TEXT)) - 8, 0)
    with pytest.raises(NoEndOfSpeech, match=f"its budget of {n} frames is used up"):
        never.speak(TEXT, options=SpeechOptions(retries=0))


@pytest.mark.parametrize(
    ("n_tokens", "n_letters", "frames"),
    [(1, 0, 35), (2, 0, 45), (5, 0, 75), (6, 0, 75), (8, 0, 80), (100, 0, 1000), (3, 10, 80), (1, 3, 49)],
)
def test_short_texts_have_a_tight_budget_and_acronyms_have_room(n_tokens: int, n_letters: int, frames: int) -> None:
    assert frame_budget(n_tokens, n_letters) == frames


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("AWS SQL HTML", 10),
        ("two GPUs", 3),
        ("A dog. I saw Anna.", 0),
        ("USA's ДНК", 6),
        ("你好 123 __A__", 0),
        ("", 0),
    ],
)
def test_letters_of_words_in_capitals_are_spelled(text: str, n: int) -> None:
    assert n_spelled(text) == n


def test_every_sentence_of_nano_fits_its_budget_twice() -> None:
    """Sentences outside the training data, at the length of espeak-ng."""
    sentences = json.loads((Path(__file__).parents[1] / "models/nano/held_out.json").read_text())
    prompts = TTS(nano.folder(), n_threads=1)._prompts
    for sentence in sentences:
        budget = frame_budget(len(prompts.text_ids(sentence["text"])) - 8, n_spelled(sentence["text"]))
        assert 2 * 12.5 * sentence["seconds"] <= budget, sentence["text"]


def test_changing_the_samples_of_a_stream_changes_nothing_else(never: TTS) -> None:
    streamed = []
    with never.utter(TEXT, options=SpeechOptions(seed=1, max_frames=3)) as utterance:
        for samples in utterance:
            streamed.append(samples.copy())
            samples[:] = 0
    assert np.array_equal(utterance.samples, np.concatenate(streamed))


def test_a_stream_gives_all_its_frames_and_then_the_error(never: TTS) -> None:
    stream = never.stream(TEXT, options=SpeechOptions(seed=1, max_frames=3))
    frames = [next(stream) for _ in range(3)]
    with pytest.raises(NoEndOfSpeech) as caught:
        next(stream)
    assert np.array_equal(np.concatenate(frames), caught.value.samples) and caught.value.seed == 1  # no retry


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_each_retry_is_one_attempt_with_a_seed_of_its_own(never: TTS, retries: int) -> None:
    options = SpeechOptions(seed=1, max_frames=2, retries=retries)
    attempts = [(each.seed, list(each), each.codes.tolist()) for each in never.attempts(TEXT, options=options)]
    seeds = [1, next_seed(1), next_seed(next_seed(1))]
    assert [seed for seed, _, _ in attempts] == seeds[: retries + 1]
    assert len({str(codes) for _, _, codes in attempts}) == retries + 1


def test_an_attempt_that_ends_is_the_last(soon: TTS, failing: int) -> None:
    options = SpeechOptions(seed=failing, max_frames=TIGHT)
    attempts = list(all_attempts(soon, options))
    assert [each.ended for each in attempts] == [False, True]
    assert np.array_equal(soon.speak(TEXT, options=options), attempts[-1].samples)
    good = next_seed(failing)
    assert [each.seed for each in all_attempts(soon, SpeechOptions(seed=good, max_frames=TIGHT))] == [good]


def all_attempts(tts: TTS, options: SpeechOptions) -> Any:
    for utterance in tts.attempts(TEXT, options=options):
        utterance.finish()
        yield utterance


def test_a_retry_is_as_repeatable_as_a_first_attempt(soon: TTS, failing: int) -> None:
    options = SpeechOptions(seed=failing, max_frames=TIGHT)
    speech = soon.speak(TEXT, options=options)
    assert np.array_equal(soon.speak(TEXT, options=options), speech)
    by_its_own_seed = SpeechOptions(seed=next_seed(failing), max_frames=TIGHT, retries=0)
    assert np.array_equal(soon.speak(TEXT, options=by_its_own_seed), speech)


def test_a_speech_may_take_its_whole_budget(soon: TTS, failing: int) -> None:
    with soon.utter(TEXT, options=SpeechOptions(seed=failing)) as utterance:
        utterance.finish()
    n = len(utterance.codes)
    assert utterance.ended and n > TIGHT
    assert len(soon.speak(TEXT, options=SpeechOptions(seed=failing, max_frames=n, retries=0))) == n * FRAME
    with pytest.raises(NoEndOfSpeech):
        soon.speak(TEXT, options=SpeechOptions(seed=failing, max_frames=n - 1, retries=0))


def test_where_nothing_is_left_to_chance_there_is_one_attempt(never: TTS) -> None:
    assert len(list(all_attempts(never, SpeechOptions(greedy=True, max_frames=2)))) == 1


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def speak(run: test_cli.Run, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """speak(ends, options) -> code, out, err: in an empty folder, into out.wav by default"""
    monkeypatch.chdir(tmp_path)

    def call(ends: str, *options: object) -> Any:
        return run("speak", TEXT, "-m", pair(ends=ends).talker, "--threads", "1", "-o", "out.wav", *options)

    return call


def test_speech_without_end_is_exit_3_and_leaves_no_file(speak: Callable[..., Any], tmp_path: Path) -> None:
    result = speak("never", "--seed", "1", "--max-frames", "3", "--codes", "out.npy", "--retries", "1")
    assert (result.code, result.out) == (3, b"")
    again, hint, error = result.err.splitlines()
    assert again == f"warning: the speech did not end; retrying with seed {next_seed(1)}"
    assert hint == "hint: --keep-partial writes what was spoken"
    assert error.startswith("error: the speech did not end after 0.2 s") and "budget of 3 frames" in error
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_when_speech_fails(speak: Callable[..., Any]) -> None:
    Path("out.wav").write_bytes(b"older")
    assert speak("never", "--max-frames", "2").code == 3
    assert Path("out.wav").read_bytes() == b"older"


def test_keep_partial_keeps_the_last_attempt_and_still_fails(speak: Callable[..., Any], tmp_path: Path) -> None:
    options = "--seed", "1", "--max-frames", "3", "--codes", "out.npy", "--keep-partial"
    result = speak("never", *options)
    assert result.code == 3 and "error: the speech did not end after 0.2 s" in result.err and "hint" not in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "out.wav"]
    assert soundfile.info("out.wav").frames == 3 * FRAME
    kept = np.load("out.npy")
    last = next_seed(next_seed(1))
    assert f"seed {last} -> out.wav" in result.err
    speak("never", "--seed", last, *options[2:], "--retries", "0")
    assert np.array_equal(np.load("out.npy"), kept)


def test_speech_that_ends_at_the_second_attempt_is_a_success(
    speak: Callable[..., Any], failing: int, tmp_path: Path
) -> None:
    result, good = speak("soon", "--seed", failing, "--max-frames", TIGHT), next_seed(failing)
    assert result.code == 0 and f"retrying with seed {good}" in result.err
    assert f"seed {good} -> out.wav" in result.err
    first = Path("out.wav").read_bytes()
    assert speak("soon", "--seed", good, "--max-frames", TIGHT, "--retries", "0", "-q").err == ""
    assert Path("out.wav").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_speech_that_ends_needs_no_retry(speak: Callable[..., Any], failing: int) -> None:
    result = speak("soon", "--seed", next_seed(failing), "--max-frames", TIGHT)
    assert result.code == 0 and "retrying" not in result.err


def test_a_stream_stops_says_so_and_is_not_tried_again(speak: Callable[..., Any], tmp_path: Path) -> None:
    result = speak("never", "--seed", "1", "--max-frames", "3", "-o", "-", "--codes", "out.npy")
    assert result.code == 3 and len(result.out) == 44 + 2 * 3 * FRAME
    hint, error = result.err.splitlines()
    assert hint == "hint: what was written to stdout stays there; -o FILE tries again with another seed"
    assert error.startswith("error: the speech did not end after 0.2 s with seed 1")
    assert not list(tmp_path.iterdir())


def test_a_quiet_stream_still_says_so(speak: Callable[..., Any]) -> None:
    result = speak("never", "--max-frames", "2", "-o", "-", "-q")
    assert result.code == 3 and result.err.startswith("error: the speech did not end") and result.err.count("\n") == 1


@pytest.mark.parametrize("options", [(), ("--keep-partial",)])
def test_speech_without_end_becomes_no_voice(
    speak: Callable[..., Any], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Its transcript would say more than is spoken."""
    result = speak("never", "--max-frames", "2", "--save-voice", "anna", "--voices", tmp_path / "voices", *options)
    assert result.code == 3 and not (tmp_path / "voices").exists()


def test_retries_below_zero_are_not_understood(speak: Callable[..., Any]) -> None:
    assert speak("soon", "--retries", "-1").code == 2
