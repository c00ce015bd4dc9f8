"""`speak` with texts of any length: files, splits, pauses, subtitles, formats, speed, and what stays after a stop."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pysubs2
import pytest
import soundfile
import test_cli

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import audio_player
from qwen3tts_gguf.cli.long_text import Spoken
from qwen3tts_gguf.reading import Passage

run = test_cli.run
Run = test_cli.Run

SENTENCES = ["My name is Anna.", "Wait ten days.", "Thank you very much, David."]
STORY = " ".join(SENTENCES[:2]) + "\n\n" + SENTENCES[2] + "\n"
NANO = ("--model", "nano", "--voice", "f2", "--seed", "3", "--threads", "2")


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(STORY, "utf-8")
    return path


@pytest.fixture
def never(pair: Callable[..., ConvertedPair]) -> Path:
    """Never ends a speech."""
    return pair(ends="never").talker


def sound(path: Path) -> Any:
    return soundfile.read(path, dtype="int16")[0]


def cues(path: Path) -> list[tuple[int, int, str]]:
    return [(cue.start, cue.end, cue.plaintext) for cue in pysubs2.load(str(path))]


def test_a_file_stdin_and_an_argument_are_the_same_text(run: Run, story: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"{i}.wav" for i in range(4)]
    calls = [(STORY,), ("-f", story), ("-",), ("--file", "-")]
    for output, call in zip(outputs, calls, strict=True):
        result = run("speak", *call, *NANO, "--split", "sentence", "-o", output, stdin=STORY.encode())
        assert result.code == 0 and ", 3 passages, in" in result.err and "seed 3" in result.err
    assert all(output.read_bytes() == outputs[0].read_bytes() for output in outputs)


def test_stdout_and_a_file_have_the_same_sound(run: Run, story: Path, tmp_path: Path) -> None:
    call = ("speak", "-f", story, *NANO, "--split", "sentence", "-q")
    assert run(*call, "-o", tmp_path / "a.wav").code == 0
    wav, pcm = run(*call, "-o", "-").out, run(*call, "-o", "-", "--format", "pcm").out
    assert wav[44:] == pcm == sound(tmp_path / "a.wav").tobytes()


def test_pauses_are_as_asked(run: Run, story: Path, tmp_path: Path) -> None:
    lengths = []
    for pause in ("0", "0.5", "0.1,1"):
        run("speak", "-f", story, *NANO, "--split", "sentence", "--pause", pause, "-o", tmp_path / "a.wav")
        lengths.append(soundfile.info(tmp_path / "a.wav").frames)
    assert lengths[1] - lengths[0] == 2 * 12_000
    assert lengths[2] - lengths[0] == 2_400 + 24_000


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_subtitles_have_a_cue_per_sentence_at_its_time(run: Run, story: Path, tmp_path: Path, suffix: str) -> None:
    output, subtitles = tmp_path / "a.wav", tmp_path / f"a{suffix}"
    result = run("speak", "-f", story, *NANO, "--subtitles", subtitles, "-o", output, "--speed", "1.25")
    assert result.code == 0
    found, samples = cues(subtitles), sound(output)
    assert [text for _, _, text in found] == SENTENCES
    assert abs(found[-1][1] - len(samples) / 24) < 2
    for (_, stop, _), (start, _, _) in pairwise(found):  # between two cues it is quiet
        assert start - stop in (239, 240, 241, 479, 480, 481)
        assert np.abs(samples[(stop + 20) * 24 : (start - 20) * 24]).max() < 500


@pytest.mark.parametrize(("name", "subtype"), [("a.opus", "OPUS"), ("a.flac", "PCM_16"), ("a.mp3", "MPEG_LAYER_III")])
def test_long_sound_is_written_in_every_format(run: Run, story: Path, tmp_path: Path, name: str, subtype: str) -> None:
    run("speak", "-f", story, *NANO, "--split", "sentence", "-o", tmp_path / "a.wav")
    assert run("speak", "-f", story, *NANO, "--split", "sentence", "-o", tmp_path / name).code == 0
    info = soundfile.info(tmp_path / name)
    assert info.subtype == subtype and abs(info.frames - len(sound(tmp_path / "a.wav"))) < 2400


def test_speed_changes_the_length_of_one_passage_too(run: Run, tmp_path: Path) -> None:
    for speed in ("1", "2"):
        assert run("speak", "Hello Anna.", *NANO, "--speed", speed, "-o", tmp_path / f"{speed}.wav").code == 0
    whole, half = sound(tmp_path / "1.wav"), sound(tmp_path / "2.wav")
    assert len(whole) == 2 * len(half) and np.abs(half).max() > 1000


def test_play_plays_all_and_writes_only_where_asked(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: list[Any] = []

    class Stream:
        def __init__(self, **settings: Any) -> None:
            assert settings == {"samplerate": 24_000, "channels": 1, "dtype": "float32"}

        def write(self, samples: Any) -> None:
            played.append(samples[:, 0])

        def start(self) -> None: ...

        stop = close = start

    class Device:
        OutputStream, PortAudioError = Stream, RuntimeError

    monkeypatch.setattr(audio_player, "require_player", lambda: Device)
    monkeypatch.chdir(tmp_path)
    result = run("speak", STORY, *NANO, "--split", "sentence", "--play")
    assert result.code == 0 and "-> loudspeaker" in result.err and not list(tmp_path.iterdir())
    n_played = sum(map(len, played))
    assert run("speak", STORY, *NANO, "--split", "sentence", "--play", "-o", "a.wav").code == 0
    assert len(sound(Path("a.wav"))) == n_played == sum(map(len, played)) - n_played


def test_codes_and_a_voice_are_saved_of_a_long_text(run: Run, story: Path, tmp_path: Path) -> None:
    voices = ("--voices", tmp_path / "voices")
    result = run(
        "speak", "-f", story, *NANO, "--split", "sentence", "--pause", "0", "-o", tmp_path / "a.wav",
        "--codes", tmp_path / "a.npy", "--save-voice", "anna", *voices,
    )  # fmt: skip
    assert result.code == 0, result.err
    codes = np.load(tmp_path / "a.npy")
    assert codes.shape[1] == 16 and 0 <= len(codes) * 1920 - len(sound(tmp_path / "a.wav")) < len(codes) * 1920 / 2
    assert run("voice", "show", "anna", *voices).code == 0


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Ctrl-C, once so many passages are written."""
    add, added = Spoken.add, []

    def interrupted(spoken: Spoken, passage: Passage) -> None:
        add(spoken, passage)
        added.append(passage)
        if len(added) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Spoken, "add", interrupted)


@pytest.mark.parametrize("keeps", [False, True])
def test_ctrl_c_keeps_what_was_written_only_if_asked(
    run: Run, tmp_path: Path, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, after=2)
    options = ("--keep-partial",) if keeps else ()
    result = run("speak", STORY * 4, *NANO, "--split", "sentence", "-o", tmp_path / "a.wav", *options)
    assert result.code == 130 and "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == (["a.wav"] if keeps else [])
    assert not keeps or len(sound(tmp_path / "a.wav")) > 10_000


def test_a_passage_that_never_ends_fails_the_reading_unless_partial_is_kept(
    run: Run, never: Path, tmp_path: Path
) -> None:
    call = ("speak", "One. Two.", "-m", never, "--split", "sentence", *test_cli.SHORT, "-o", tmp_path / "a.wav")
    failed = run(*call)
    assert failed.code == 3 and "error: passage 1: " in failed.err and not list(tmp_path.iterdir())
    kept = run(*call, "--keep-partial")
    assert kept.code == 3 and "passage 2 did not end, and what was spoken of it was written" in kept.err
    assert soundfile.info(tmp_path / "a.wav").frames > 2 * 2 * 1500


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-f", "story.txt"], "--file gives the text"),
        (["-f", "absent.txt"], "absent.txt: no such file"),
        (["a", "--pause", "long"], "--pause takes seconds"),
        (["a", "--pause", "61"], "--pause must be 0 to 60 s"),
        (["a", "--speed", "5"], "--speed must be 0.25 to 4"),
        (["a", "--subtitles", "a.txt"], "saved as .srt or .vtt"),
        (["a", "--subtitles", "a.srt", "--split", "line"], "--subtitles has a cue per sentence"),
        (["a", "-o", "-", "--format", "opus"], "opus cannot be streamed"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_a_model_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("speak", *arguments, "-m", "absent.gguf")
    assert result.code == 1 and result.out == b"" and message in result.err
    assert not list(tmp_path.iterdir())


def test_a_stream_of_passages_has_no_codes(run: Run, tmp_path: Path) -> None:
    result = run("speak", STORY, *NANO, "--split", "sentence", "-o", "-", "--codes", tmp_path / "codes.npy")
    assert result.code == 1 and result.out == b"" and "--codes and --save-voice need a text in one" in result.err


def test_without_a_player_the_error_shows_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run("speak", "Hi.", "--play", "-m", "absent.gguf")
    assert result.code == 1 and "playing needs sounddevice: pip install 'qwen3tts-gguf[play]'" in result.err
