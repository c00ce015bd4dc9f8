"""`speak - --live`: sound while stdin is still open."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import test_cli
import test_console

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions, TextError, read
from qwen3tts_gguf.cli import live_input
from qwen3tts_gguf.speech import pace

Pair = Callable[..., ConvertedPair]
HEADER, FRAME = 44, 2 * 1920

run = test_cli.run


def popen(model: Path, *arguments: object) -> subprocess.Popen[bytes]:
    line, environment = test_console.command("speak", "-", "--live", "-m", model, "-q", "--seed", 1, *arguments)
    pipe = subprocess.PIPE
    interruptible = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        line, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0, preexec_fn=interruptible
    )


def test_the_codes_are_those_of_the_whole_text(run: test_cli.Run, pair: Pair, tmp_path: Path) -> None:
    model, text = pair(ends="soon").talker, "Hello, wörld! 你好。\n"
    common = ("-m", model, "--seed", 3, "--max-frames", 40, "-o", tmp_path / "x.wav", "--keep-partial", "--retries", 0)
    run("speak", "-", "--live", *common, "--codes", tmp_path / "live.npy", stdin=text.encode())
    run("speak", text, "--layout", "stepwise", "--x-vector-only", *common, "--codes", tmp_path / "whole.npy")
    live, whole = np.load(tmp_path / "live.npy"), np.load(tmp_path / "whole.npy")
    assert len(live) and np.array_equal(live, whole)


def test_sound_comes_before_the_last_word_is_written(pair: Pair) -> None:
    with popen(pair(ends="never").talker, "-o", "-", "--max-frames", 12) as process:
        assert process.stdin and process.stdout
        process.stdin.write("One two thr\u00e9".encode()[:-1])
        process.stdin.write("\u00e9 four five six ".encode()[1:])
        sound = b""
        while len(sound) < HEADER + FRAME:
            more = process.stdout.read(HEADER + FRAME - len(sound))
            assert more, process.wait()
            sound += more
        process.stdin.write(b"seven.")
        process.stdin.close()
        while more := process.stdout.read(1 << 16):
            sound += more
        assert process.wait() == 3  # a random model does not end its speech
    assert len(sound) == HEADER + 12 * FRAME


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_it_while_it_waits_for_text(pair: Pair) -> None:
    with popen(pair(ends="never").talker, "-o", "-") as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"One two three four five six ")
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b""


def test_letters_may_arrive_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\ufeffé今😀".encode()
    parts = iter([*(bytes([byte]) for byte in content), b""])
    monkeypatch.setattr(live_input, "_reader", lambda: lambda n: next(parts))
    assert list(live_input.arriving_on_stdin()) == ["é", "今", "😀"]


@pytest.mark.parametrize("content", [b"One \xff", b"One \xc3"])
def test_what_is_not_utf8_is_an_error(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    parts = iter([content, b""])
    monkeypatch.setattr(live_input, "_reader", lambda: lambda n: next(parts))
    with pytest.raises(TextError, match="stdin: not UTF-8"):
        list(live_input.arriving_on_stdin())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Hello.", "--live"], "--live speaks what arrives on stdin"),
        (["-", "--live", "--clean", "markdown"], "--clean needs the whole text"),
        (["-", "--live-in-context"], "--live-in-context and --live-by need --live"),
        (["-", "--live-by", "token"], "--live-in-context and --live-by need --live"),
        (
            ["-", "--live", "--live-by", "sentence", "--codes", "x.npy"],
            "--codes and --save-voice need the text in one speech",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: test_cli.Run, pair: Pair, arguments: list[str], message: str
) -> None:
    result = run("speak", *arguments, "-m", pair().talker)
    assert test_cli.is_one_error_line(result) and message in result.err


def test_an_empty_stdin_is_one_error_line(run: test_cli.Run, pair: Pair, tmp_path: Path) -> None:
    result = run("speak", "-", "--live", "-m", pair().talker, "-q", "-o", tmp_path / "x.wav", stdin=b" \n")
    assert result.code == 1 and "there is no text to speak" in result.err and not list(tmp_path.iterdir())


def test_whole_sentences_are_a_reading(run: test_cli.Run, tmp_path: Path) -> None:
    text, target = "Seven three nine. Good evening Maria.", tmp_path / "x.wav"
    result = run(
        "speak", "-", "--live", "--live-by", "sentence", "-m", "nano", "--seed", 1, "-o", target, stdin=text.encode()
    )
    assert result.code == 0, result.err
    with TTS("nano") as tts:
        sounds = [sound.samples for sound in read(tts, [text], None, SpeechOptions(seed=1), split="sentence").stream()]
    written, _ = soundfile.read(target, dtype="int16")
    assert np.array_equal(written, np.rint(np.concatenate(sounds) * 32767).astype(np.int16))


@pytest.mark.parametrize(("is_fast", "spoken"), [(True, "token"), (False, "sentence")])
def test_auto_follows_the_pace_of_the_text(
    run: test_cli.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_fast: bool, spoken: str
) -> None:
    monkeypatch.setattr(pace, "keeps_up", lambda pieces, count: (is_fast, pieces))
    common = ("speak", "-", "--live", "-m", "nano", "--seed", 1, "-o")
    text = b"Seven three nine. Good evening Maria."
    found = run(*common, tmp_path / "auto.wav", stdin=text)
    run(*common, tmp_path / "wanted.wav", "--live-by", spoken, stdin=text)
    assert (tmp_path / "auto.wav").read_bytes() == (tmp_path / "wanted.wav").read_bytes()
    assert ("speaking whole sentences" in found.err) is not is_fast
