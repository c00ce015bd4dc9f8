"""The command line: results on stdout, everything else on stderr, errors in one line, exit codes."""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import cli
from qwen3tts_gguf.audio import read_audio

Run = Callable[..., SimpleNamespace]
Pair = Callable[..., ConvertedPair]
SHORT = ("--max-frames", "2", "--seed", "1", "--threads", "1")


def _end_tests(number: int, _frame: FrameType | None) -> None:
    pytest.exit(f"ended by {signal.Signals(number).name}", 128 + number)


@contextmanager
def own_signals() -> Iterator[None]:
    """`main` takes SIGTERM and SIGHUP for itself where nobody has. Then a signal that is to end the tests, such as
    that of `timeout`, would look like a command that failed with 143."""
    numbers = signal.SIGTERM, signal.SIGHUP
    before = [signal.signal(number, _end_tests) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """run(*arguments, stdin=bytes) -> code, out (bytes), err (text): `main` in this process, with its own streams."""

    def call(*arguments: object, stdin: bytes = b"") -> SimpleNamespace:
        capfdbinary.readouterr()
        with (
            open(os.dup(1), "w", encoding="utf-8") as stdout,
            open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as stderr,
            pytest.MonkeyPatch.context() as patch,
            own_signals(),
        ):
            patch.setattr(sys, "argv", ["qwen3tts", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", stderr)
            with pytest.raises(SystemExit) as caught:
                cli.main()
        out, err = capfdbinary.readouterr()
        return SimpleNamespace(code=caught.value.code or 0, out=out, err=err.decode())

    return call


@pytest.fixture
def model(pair: Pair) -> Path:
    """Says two frames, whatever the text is."""
    return pair(ends="at-once").talker


def is_one_error_line(result: SimpleNamespace) -> bool:
    lines = result.err.splitlines()
    return result.code == 1 and result.out == b"" and len(lines) == 1 and lines[0].startswith("error: ")


# -- convert -----------------------------------------------------------------------------------------------------------


def test_convert_then_speak(run: Run, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    made = run("convert", checkpoint(ends="at-once"), "--out", tmp_path, "--type", "q8_0")
    talker, mmproj = (Path(line) for line in made.out.decode().splitlines())
    assert made.code == 0 and made.err == ""
    assert (talker.name, mmproj.name) == ("tiny-base-Q8_0.gguf", "mmproj-tiny-base-Q8_0.gguf")
    assert sorted(tmp_path.iterdir()) == sorted([talker, mmproj])
    result = run("speak", "Hello.", "--model", tmp_path, "-o", tmp_path / "out.wav", *SHORT)
    assert result.code == 0 and result.out == b""
    assert soundfile.info(tmp_path / "out.wav").frames == 2 * 1920
    assert "0.16 s of speech" in result.err and "seed 1" in result.err


# -- speak -------------------------------------------------------------------------------------------------------------


def test_speak_in_the_voice_of_a_clip(run: Run, model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "ref.flac", tiny.reference_clip(24_000), 24_000)
    outputs = [tmp_path / "plain.wav", tmp_path / "cloned.wav"]
    for output, voice in zip(outputs, ([], ["--voice", tmp_path / "ref.flac"]), strict=True):
        result = run("speak", "Hello.", "-m", model, "-o", output, "--language", "en", "--quiet", *voice, *SHORT)
        assert (result.code, result.out, result.err) == (0, b"", "")
    plain, cloned = map(read_audio, outputs)
    assert len(plain) == len(cloned) == 2 * 1920 and not np.array_equal(plain, cloned)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_the_suffix_decides_the_format(run: Run, model: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"speech{suffix}"
    assert run("speak", "Hello.", "-m", model, "-o", output, "-q", *SHORT).code == 0
    assert soundfile.info(output).format == {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".mp3": "MP3"}[suffix]


def test_minus_o_minus_streams_wav_and_nothing_else(run: Run, model: Path, tmp_path: Path) -> None:
    result = run("speak", "Hello.", "-m", model, "-o", "-", *SHORT)
    assert result.code == 0 and "seed 1" in result.err
    assert len(result.out) == 44 + 2 * 2 * 1920
    assert struct.unpack_from("<4sI4s", result.out)[::2] == (b"RIFF", b"WAVE")
    run("speak", "Hello.", "-m", model, "-o", tmp_path / "file.wav", *SHORT)
    saved, _ = soundfile.read(tmp_path / "file.wav", dtype="int16")
    assert np.frombuffer(result.out, "<i2", offset=44).tolist() == saved.tolist()


def test_minus_reads_the_text_from_stdin(run: Run, model: Path) -> None:
    spoken = run("speak", "你好。", "-m", model, "-o", "-", *SHORT)
    piped = run("speak", "-", "-m", model, "-o", "-", *SHORT, stdin="你好。\n".encode())
    assert piped.code == 0 and piped.out == spoken.out


def test_codes_are_saved_and_decode_to_the_speech(run: Run, model: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes.npy"
    alone = ("--voice", "none")  # without a reference whose sound it goes on from
    result = run("speak", "Hello.", "-m", model, "-o", tmp_path / "spoken.wav", "--codes", codes, *alone, *SHORT)
    assert result.code == 0
    saved = np.load(codes)
    assert saved.shape == (2, 16) and saved.dtype == np.int32
    for path in (model, model.parent, model.with_name(f"mmproj-{model.name}")):
        decoded = run("codec", "decode", codes, "--model", path, "-o", tmp_path / "decoded.wav", "--threads", 1)
        assert (decoded.code, decoded.out) == (0, b"")
        assert (tmp_path / "decoded.wav").read_bytes() == (tmp_path / "spoken.wav").read_bytes()
    streamed = run("codec", "decode", codes, "-m", model, "-o", "-", "-q")
    assert streamed.err == "" and len(streamed.out) == 44 + 2 * 2 * 1920


def test_every_sampling_option_reaches_the_sampler(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3tts_gguf.tts import TTS

    values = {"temperature": 0.5, "top_k": 7, "top_p": 0.8, "repetition_penalty": 1.3}
    values |= {
        f"sub_{name}": value / 2 if name != "sub_top_k" and name != "top_k" else 3 for name, value in values.items()
    }
    seen: list[Any] = []
    utter = TTS.utter
    monkeypatch.setattr(TTS, "utter", lambda *args: seen.append(args[3]) or utter(*args))
    arguments = [str(part) for name, value in values.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = run(
        "speak", "Hello.", "-m", model, "-o", tmp_path / "o.wav", "--greedy", "-l", "German", *arguments, *SHORT
    )
    assert result.code == 0
    assert {name: getattr(seen[0], name) for name in values} == values
    assert seen[0].greedy and seen[0].language == "German" and (seen[0].seed, seen[0].max_frames) == (1, 2)


def test_the_model_may_be_in_the_environment(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN3TTS_MODEL", str(model))
    assert run("speak", "Hello.", "-o", "-", *SHORT).code == 0


# -- inspect -----------------------------------------------------------------------------------------------------------


def test_inspect_describes_both_files(run: Run, model: Path) -> None:
    report = json.loads(run("inspect", model.parent, "--json").out)
    talker, mmproj = report["files"]
    assert (talker["facts"]["file"], mmproj["facts"]["file"]) == ("talker", "mmproj")
    assert talker["facts"]["kind"] == "base" and "english" in talker["facts"]["languages"]
    assert talker["facts"]["talker hidden"] == 128 and mmproj["facts"]["codec decoder window"] == 72
    assert all(group["type"] == "F32" for file in report["files"] for group in file["tensors"])
    groups = {group["name"]: group for group in talker["tensors"]}
    assert groups["blk.*.attn_q.weight"]["count"] == 3
    assert groups["token_embd.weight"]["bytes"] == 4096 * 128 * 4


def test_inspect_lists_every_group_of_tensors_and_its_type(run: Run, pair: Pair) -> None:
    converted = pair("q8_0", "f16")
    for path, some in ((converted.talker, "blk.*.attn_q.weight"), (converted.mmproj, "a.gen.wav.quant.first")):
        result = run("inspect", path, "--tensors")
        text = result.out.decode()
        assert result.code == 0 and result.err == ""
        assert some in text and "Q8_0" in text and "F32" in text and path.name in text.replace("\n", "")


def test_inspect_describes_a_pair_on_one_page(run: Run, pair: Pair) -> None:
    result = run("inspect", pair("q8_0", "f16").talker)
    page = " ".join(result.out.decode().split())
    assert result.code == 0 and result.err == ""
    for words in ("Base: it clones voices", "mika, yuki", "English", "talker Q8_0", "on disk", "in memory about"):
        assert words in page, words
    assert "blk." not in page


@pytest.mark.parametrize(
    ("kind", "words"),
    [("custom_voice", "--speaker serena, vivian"), ("voice_design", '--instruct "a description of the voice"')],
)
def test_inspect_shows_how_to_choose_the_voice_of_each_kind(run: Run, pair: Pair, kind: str, words: str) -> None:
    assert words in " ".join(run("inspect", pair(model_type=kind).talker).out.decode().split())


def test_inspect_describes_a_single_file_as_one_of_a_pair(run: Run, pair: Pair, tmp_path: Path) -> None:
    converted = pair()
    assert "mmproj file of a model" in run("inspect", converted.mmproj).out.decode()
    alone = tmp_path / "alone.gguf"
    alone.symlink_to(converted.talker)
    assert "its mmproj file is not there" in run("inspect", alone).out.decode()


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(pair: Pair, tmp_path: Path) -> dict[str, Path]:
    """Models and clips with something wrong."""
    folder = tmp_path / "broken"
    folder.mkdir()
    small, large = pair(), pair(size="tiny-1.7b")
    paths = {name: folder / name for name in ("text.gguf", "empty.wav", "text.wav", "silent.wav")}
    paths["lonely.gguf"] = folder / "alone" / "lonely.gguf"
    paths["lonely.gguf"].parent.mkdir()
    paths["text.gguf"].write_text("this is not a model\n" * 10)
    (folder / "mmproj-text.gguf").write_text("neither is this\n" * 10)
    os.link(small.talker, paths["lonely.gguf"])
    paths["empty.wav"].touch()
    paths["text.wav"].write_text("not a sound")
    soundfile.write(paths["silent.wav"], np.zeros(0), 24_000)
    return {**paths, "other.gguf": large.mmproj, "small.gguf": small.talker, "folder": folder}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speak", "Hi.", "-m", "absent.gguf"], "absent.gguf: no such file or folder"),
        (["speak", "Hi.", "-m", "absent"], "absent: no such file or folder"),
        (["speak", "Hi.", "-m", "{text.gguf}"], "not a GGUF file"),
        (["speak", "Hi.", "-m", "{lonely.gguf}"], "its mmproj file, mmproj-lonely.gguf, is not in the same folder"),
        (["speak", "Hi.", "-m", "{lonely.gguf}", "--mmproj", "{other.gguf}"], "belongs to another model"),
        (["speak", "Hi.", "-m", "{other.gguf}"], "this is the mmproj file"),
        (["speak", "Hi.", "-m", "{folder}"], "not a GGUF file"),
        (["speak", "", "-m", "{small.gguf}"], "there is no text to speak"),
        (["speak", "-", "-m", "{small.gguf}"], "there is no text to speak"),
        (["speak", "caf\udce9", "-m", "{small.gguf}"], "surrogates"),
        (["speak", "Hi.", "-m", "{small.gguf}", "--voice", "absent.wav"], "absent.wav: no such file"),
        (["speak", "Hi.", "-m", "{small.gguf}", "--voice", "{empty.wav}"], "empty.wav: not an audio file"),
        (["speak", "Hi.", "-m", "{small.gguf}", "--voice", "{text.wav}"], "text.wav: not an audio file"),
        (["speak", "Hi.", "-m", "{small.gguf}", "--voice", "{silent.wav}"], "silent.wav: has no sound in it"),
        (["speak", "Hi.", "-m", "{small.gguf}", "--voice", "{folder}"], "broken: this is a folder or a pipe"),
        (["speak", "Hi.", "-m", "{small.gguf}", "-l", "klingon"], "unknown language 'klingon'; this model knows auto,"),
        (
            ["speak", "Hi.", "-m", "{small.gguf}", "-o", "speech.aac"],
            ".wav, .flac, .ogg, .opus, .mp3, .pcm",
        ),
        (
            ["speak", "Hi.", "-m", "{small.gguf}", "-o", "no/such/folder.wav"],
            "folder.wav: cannot be written, because there is no folder no/such",
        ),
        (["speak", "Hi.", "-m", "{small.gguf}", "--codes", "codes.txt"], "codes.txt: codes can only be saved as .npy"),
        (["speak", "Hi.", "-m", "{small.gguf}", "--temperature", "0"], "--temperature must be above 0"),
        (["convert", "absent-folder"], "absent-folder"),
        (["convert", "{folder}"], "config.json"),
        (["convert", "{folder}", "--type", "q3_x"], "unknown type 'q3_x': it is one of f32, f16"),
        (["convert", "{folder}", "--codec-type", "q8_0"], "unknown codec type 'q8_0'"),
        (["codec", "decode", "absent.npy", "-m", "{small.gguf}"], "absent.npy: no such file"),
        (["codec", "decode", "{text.wav}", "-m", "{small.gguf}"], "text.wav: not a .npy file of codes"),
        (["codec", "decode", "{folder}", "-m", "{small.gguf}"], "broken: cannot be read"),
        (["inspect", "absent.gguf"], "absent.gguf: no such file"),
        (["inspect", "{text.gguf}"], "not a GGUF file"),
        (["inspect", "{text.wav}"], "not a GGUF file"),
    ],
)
def test_wrong_input_is_one_line_and_exit_1(
    run: Run,
    broken: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    places = {f"{{{name}}}": str(path) for name, path in broken.items()}
    arguments = [places.get(argument, argument) for argument in arguments]
    if arguments[0] == "convert":
        arguments += ["--out", str(tmp_path / "out")]
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert is_one_error_line(result), result.err
    assert message in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_text_on_stdin_that_is_not_utf8_is_an_error(run: Run, model: Path) -> None:
    result = run("speak", "-", "-m", model, "-o", "-", stdin=b"caf\xe9")
    assert is_one_error_line(result) and "not UTF-8" in result.err


@pytest.mark.parametrize(
    "arguments",
    [["speak", "--nope"], ["nope"], ["speak"], ["speak", "Hi.", "--seed", "x"], ["speak", "Hi.", "--threads", "0"]],
)
def test_a_command_not_understood_is_exit_2_without_a_traceback(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 2 and result.out == b""
    assert result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["speak", "--help"], ["codec", "decode", "-h"], ["--version"]]
)
def test_help_and_version_are_results(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.code == 0 and result.out and result.err == ""


def test_debug_shows_the_traceback() -> None:
    command = [sys.executable, "-m", "qwen3tts_gguf", "--debug", "inspect", "absent.gguf"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and result.stdout == ""
    assert "Traceback" in result.stderr and "ModelFileError: absent.gguf: no such file" in result.stderr


def test_ctrl_c_is_exit_130_and_leaves_no_file(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3tts_gguf.engine.mailbox import Mailbox

    take, calls = Mailbox.take, []

    def interrupted(mailbox: Mailbox) -> Any:  # where the main thread waits
        calls.append(mailbox)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return take(mailbox)

    monkeypatch.setattr(Mailbox, "take", interrupted)
    output = tmp_path / "speech.wav"
    result = run("speak", "Hello.", "-m", model, "-o", output, "--codes", tmp_path / "codes.npy", *SHORT)
    assert result.code == 130 and result.out == b""
    assert "Traceback" not in result.err and not list(tmp_path.iterdir())


def test_ctrl_c_while_converting_leaves_nothing(
    run: Run, checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen3tts_convert import writer

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "_encode", interrupted)
    result = run("convert", checkpoint(), "--out", tmp_path)
    assert result.code == 130 and result.out == b"" and "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_a_text_that_is_refused_leaves_stdout_empty(run: Run, model: Path) -> None:
    result = run("speak", "...", "-m", model, "-o", "-")
    assert result.code == 1 and result.out == b"" and result.err.startswith("error: ")


def test_nano_stands_in_only_where_no_model_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("speak", "Seven.", "--seed", "1", "-q")
    assert result.code == 0 and Path("speech.wav").stat().st_size > 44
    assert "warning: no model in models/: the built-in model nano is used" in result.err
    result = run("speak", "Seven.", "--model", "models")
    assert result.code == 1 and result.err.startswith("error: models: no such file or folder: convert a ")


def test_nano_is_inspected_by_name(run: Run) -> None:
    result = run("inspect", "nano", "--verify")
    assert result.code == 0, result.err


def test_a_closed_pipe_ends_quietly(model: Path) -> None:
    """`qwen3tts speak ... -o - | head -c 100`"""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "qwen3tts_gguf", "speak", "Hello.", "-m", str(model), "-o", "-", "-q", *SHORT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writing)
    assert result.stderr == "" and result.returncode == 1
