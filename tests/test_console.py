"""Consoles, files and processes: texts that look like options, other encodings, signals, names, streams into files."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import test_cli
import tiny
import typer

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import OptionError, SpeechOptions, Voice, VoiceStore, cli
from qwen3tts_gguf.cli.wording import FLAGS, in_flags
from qwen3tts_gguf.whole_file import whole_file

Pair = Callable[..., ConvertedPair]
SHORT = ("--max-frames", "2", "--seed", "1", "--threads", "1")
ROOT = Path(__file__).parents[1]

run, is_one_error_line = test_cli.run, test_cli.is_one_error_line


@pytest.fixture
def model(pair: Pair) -> Path:
    """Speaks two frames, whatever the text is."""
    return pair(ends="at-once").talker


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN3TTS_VOICES", str(tmp_path / "voices"))
    return tmp_path


def command(*arguments: object) -> tuple[list[str], dict[str, str]]:
    """A process of its own, and its environment."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return [sys.executable, "-m", "qwen3tts_gguf", *map(str, arguments)], {**os.environ, "PYTHONPATH": paths}


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the model."""
    from qwen3tts_gguf.tts import TTS

    seen: list[str] = []
    utter = TTS.utter
    monkeypatch.setattr(TTS, "utter", lambda *args, **named: seen.append(args[1]) or utter(*args, **named))
    return seen


@pytest.mark.parametrize("text", ["-5 degrees", "- Hello", "-5", "-- a dash", "--- one", "-o my", "-Hello there"])
def test_a_text_that_starts_with_a_dash_is_spoken(run: test_cli.Run, model: Path, texts: list[str], text: str) -> None:
    before = [] if text.startswith("-o") else ["speak", text, "-m", model, "-o", "out.wav", *SHORT]
    orders = [before, ["speak", "-m", model, "-o", "out.wav", *SHORT, "--", text]]
    for arguments in filter(None, orders):
        texts.clear()
        result = run(*arguments)
        assert (result.code, texts) == (0, [text]), result.err


def test_values_that_start_with_a_dash_stay_with_their_options(
    run: test_cli.Run, model: Path, texts: list[str], place: Path
) -> None:
    soundfile.write("-clip.wav", tiny.reference_clip(), 24_000)
    result = run("speak", "-5 it is.", "--voice", "-clip.wav", "--ref-text", "- The light came on.", "-m", model, "-o",
                 "-out 1.wav", *SHORT)  # fmt: skip
    assert (result.code, texts) == (0, ["-5 it is."]) and (place / "-out 1.wav").is_file(), result.err


@pytest.mark.parametrize("arguments", [["-Hello"], ["--hello"], ["--sed", "1", "Hi."], ["-x", "Hi."]])
def test_a_text_taken_for_an_option_says_how_to_give_it(run: test_cli.Run, arguments: list[str]) -> None:
    result = run("speak", *arguments)
    assert result.code == 2 and "Traceback" not in result.err
    assert 'after --, or on stdin: qwen3tts speak -o out.wav -- "-text"' in result.err


def test_a_missing_text_is_a_command_not_understood(run: test_cli.Run) -> None:
    result = run("speak")
    assert result.code == 2 and "Missing text: give it as an argument, by --file, or - for standard input" in result.err


def test_words_without_quotes_and_the_name_of_a_file_get_a_hint(run: test_cli.Run, tmp_path: Path) -> None:
    result = run("speak", "Good", "morning.")
    assert result.code == 2 and "goes in quotes" in result.err
    (tmp_path / "seven.txt").write_text("Seven.", "utf-8")
    result = run("speak", str(tmp_path / "seven.txt"), "-m", "absent")
    assert f"to speak what is in the file: -f {tmp_path / 'seven.txt'}" in result.err


def test_a_wrong_value_is_named_with_the_right_ones(run: test_cli.Run) -> None:
    result = run("speak", "Hi.", "--layout", "both")
    assert result.code == 2 and "'both' is not one of 'whole', 'stepwise'" in result.err
    assert "Value error" not in result.err


def test_markdown_is_cleaned_on_request(run: test_cli.Run, model: Path, texts: list[str]) -> None:
    text = "# Read *this*\n- [here](https://example.com)"
    assert run("speak", text, "-m", model, *SHORT).code == 0
    assert run("speak", "-", "--clean", "markdown", "-m", model, *SHORT, stdin=text.encode()).code == 0
    assert texts == [text, "Read this\nhere"]


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\n* one\n* two", "https://example.com/a?b=c&d=%20#e", "def f(x):\n\treturn {x: [1, 2]}",
        '<speak>Hi <break time="1s"/></speak>', "SHOUTED WORDS, ALL OF THEM", "a@b.org, $5.00, 3×4=12, ½",
        "\u2028Hi\u00ad\u200b",
    ],
)  # fmt: skip
def test_texts_of_all_kinds_end(run: test_cli.Run, model: Path, text: str) -> None:
    assert run("speak", text, "-m", model, *SHORT, "-q").code == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_files_of_editors_are_read(run: test_cli.Run, model: Path, texts: list[str], encoding: str) -> None:
    assert run("speak", "-", "-m", model, *SHORT, stdin="Ünï 音".encode(encoding)).code == 0
    assert texts == ["Ünï 音"]


def test_a_text_of_another_encoding_says_what_to_do(run: test_cli.Run, model: Path) -> None:
    result = run("speak", "-", "-m", model, stdin="caf\xe9".encode("latin-1"))
    assert is_one_error_line(result) and "not UTF-8 text: save it as UTF-8" in result.err


# -- transcripts beside the clip ---------------------------------------------------------------------------------------


def test_a_transcript_next_to_the_clip_is_named_when_it_is_used(run: test_cli.Run, model: Path, place: Path) -> None:
    soundfile.write("ref.wav", tiny.reference_clip(), 24_000)
    (place / "ref.txt").write_bytes(b"\xef\xbb\xbfThe light came on again.\r\n")
    speak = ("speak", "Hello.", "--voice", "ref.wav", "-m", model, *SHORT, "--save-voice")
    result = run(*speak[:-1])
    assert result.code == 0 and result.err.splitlines()[0] == "transcript: ref.txt"
    assert "transcript:" not in run(*speak[:-1], "--ref-text", "The light came on again.").err
    assert run(*speak[:-1], "-q").err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "ref.txt: it is empty"), (b"\xef\xbb\xbf \n", "it is empty"), (b"caf\xe9", "not UTF-8")],
)
def test_an_unreadable_transcript_that_was_not_named_is_a_warning(
    run: test_cli.Run, model: Path, place: Path, content: bytes, message: str
) -> None:
    soundfile.write("ref.wav", tiny.reference_clip(), 24_000)
    (place / "ref.txt").write_bytes(content)
    result = run("speak", "Hello.", "--voice", "ref.wav", "-m", model, *SHORT, "-q")
    assert result.code == 0 and message in result.err and result.err.startswith("warning: ")
    refused = run("speak", "Hello.", "--voice", "ref.wav", "--ref-text-file", "ref.txt", "-m", model, *SHORT)
    assert is_one_error_line(refused)


# -- consoles ----------------------------------------------------------------------------------------------------------

NAME = "Ünï 音"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["voice", "list"], 0),
        (["voice", "list", "--json"], 0),
        (["voice", "show", NAME], 0),
        (["voice", "show", NAME, "--json"], 0),
        (["convert", "{checkpoint}", "--out", "音 models", "--name", "音😀"], 0),
        (["speak", "--help"], 0),
        (["speak", "音", "-l", "音", "-m", "nano"], 1),
        (["speak", "--no音"], 2),
    ],
)
def test_a_console_of_another_encoding_shows_what_it_can(
    checkpoint: Callable[..., Path], place: Path, arguments: list[str], code: int
) -> None:
    voice = Voice(codes=np.zeros((3, 16), np.int32), transcript="音 😀 é", instruct="音")
    VoiceStore(place / "voices").save(NAME, voice)
    (place / "voices" / "音x.voice.safetensors").write_text("damaged")
    line, environment = command(*(checkpoint() if each == "{checkpoint}" else each for each in arguments))
    result = subprocess.run(line, capture_output=True, env={**environment, "PYTHONIOENCODING": "cp1252"})
    assert result.returncode == code and b"Traceback" not in result.stderr, result.stderr
    if "--json" in arguments:
        report = json.loads(result.stdout.decode("cp1252"))
        assert (report[0] if isinstance(report, list) else report)["transcript"] == "音 😀 é"


# -- streams into files ------------------------------------------------------------------------------------------------


def sizes(content: bytes) -> tuple[int, int]:
    return struct.unpack_from("<I", content, 4)[0], struct.unpack_from("<I", content, 40)[0]


UNKNOWN = 0xFFFF_FFFF


@pytest.mark.parametrize(("ends", "code"), [("at-once", 0), ("never", 3)])
def test_a_stream_into_a_file_has_its_sizes_in_the_end(pair: Pair, place: Path, ends: str, code: int) -> None:
    line, environment = command("speak", "Hi.", "-m", pair(ends=ends).talker, "-o", "-", "-q", *SHORT)
    with (place / "r.wav").open("wb") as file:
        assert subprocess.run(line, stdout=file, stderr=subprocess.DEVNULL, env=environment).returncode == code
    content = (place / "r.wav").read_bytes()
    assert sizes(content) == (len(content) - 8, len(content) - 44) and len(content) == 44 + 2 * 2 * 1920


def test_bytes_before_the_stream_stay(model: Path, place: Path) -> None:
    line, environment = command("speak", "Hi.", "-m", model, "-o", "-", "-q", *SHORT)
    with (place / "two.bin").open("wb") as file:
        for _ in range(2):
            subprocess.run(line, stdout=file, env=environment, check=True)
    content = (place / "two.bin").read_bytes()
    half = len(content) // 2
    assert content[:half] == content[half:] and sizes(content) == (half - 8, half - 44)


@pytest.mark.parametrize("mode", ["append", "pipe"])
def test_what_cannot_be_written_over_keeps_the_largest_sizes(model: Path, place: Path, mode: str) -> None:
    line, environment = command("speak", "Hi.", "-m", model, "-o", "-", "-q", *SHORT)
    if mode == "append":
        (place / "r.wav").write_bytes(b"before")
        with (place / "r.wav").open("ab") as file:
            subprocess.run(line, stdout=file, env=environment, check=True)
        content = (place / "r.wav").read_bytes()
        assert content.startswith(b"before")
        content = content[6:]
    else:
        content = subprocess.run(line, stdout=subprocess.PIPE, env=environment, check=True).stdout
    assert sizes(content) == (UNKNOWN, UNKNOWN) and len(content) == 44 + 2 * 2 * 1920


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
@pytest.mark.parametrize("output", ["speech.wav", "-"])
def test_a_signal_leaves_no_unfinished_file(pair: Pair, place: Path, name: str, code: int, output: str) -> None:
    """Sent at the first frame, from within: where it arrives is where it matters."""
    script = place / "stopped.py"
    script.write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job ignores it,
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # and one that runs under nohup ignores this
        "from qwen3tts_gguf.nets.codec_decoder import CodecDecoder\n"
        "decode = CodecDecoder.decode\n"
        "def stopped(*args):\n"
        "    CodecDecoder.decode = decode\n"
        "    samples = decode(*args)\n"
        f"    os.kill(os.getpid(), signal.{name})\n"
        "    return samples\n"
        "from qwen3tts_gguf import cli\n"
        "CodecDecoder.decode = stopped\n"
        "cli.main()\n"
    )
    _, environment = command()
    folder = place / "out"
    folder.mkdir()
    target = folder / "speech.wav"
    line = [
        sys.executable,
        str(script),
        "speak",
        "Hi.",
        "-m",
        str(pair(ends="never").talker),
        "-q",
        "--max-frames",
        "40",
    ]
    with (folder / "stream.wav").open("wb") as stdout:
        result = subprocess.run(
            [*line, "-o", target if output != "-" else "-"], stdout=stdout, stderr=subprocess.PIPE, env=environment
        )
    assert (result.returncode, result.stderr) == (code, b"")
    assert [path.name for path in folder.iterdir()] == ["stream.wav"]
    content = (folder / "stream.wav").read_bytes()
    if output == "-":
        assert sizes(content) == (len(content) - 8, len(content) - 44)


def test_nohup_is_respected(model: Path) -> None:
    line, environment = command("--version")
    code = "import signal; from qwen3tts_gguf import cli; cli._stop_on_signals(); print(signal.getsignal(1).name)"
    ignored = subprocess.run(
        [line[0], "-c", code], env=environment, capture_output=True, text=True, check=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert "SIG_IGN" in ignored.stdout


# -- names and folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 251 + ".wav", "音" * 83 + "xx.wav"], ids=["ascii", "utf-8"])
def test_names_as_long_as_a_file_system_takes_work(run: test_cli.Run, model: Path, place: Path, name: str) -> None:
    assert len(name.encode()) == 255
    assert run("speak", "Hi.", "-m", model, "-o", name, "--codes", f"{name[:-4]}.npy", *SHORT).code == 0
    assert sorted(path.name for path in place.iterdir()) == sorted([name, f"{name[:-4]}.npy"])


def test_a_converted_pair_may_have_a_long_name(run: test_cli.Run, checkpoint: Callable[..., Path]) -> None:
    name = "x" * (255 - len("mmproj--Q8_0.gguf"))
    assert run("convert", checkpoint(), "--out", "models", "--name", name).code == 0
    too_long = run("convert", checkpoint(), "--out", "models", "--name", f"{name}y")
    assert is_one_error_line(too_long) and "File name too long" in too_long.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "no/such/speech.wav"], "no/such/speech.wav: cannot be written, because there is no folder no/such"),
        (["--codes", "no/such/codes.npy"], "no/such/codes.npy: cannot be written, because there is no folder no/such"),
        (["-o", "folder.wav"], "folder.wav: cannot be written, because it is a folder"),
    ],
)
def test_a_missing_folder_is_called_that_before_the_model_is_loaded(
    run: test_cli.Run, place: Path, options: list[str], message: str
) -> None:
    (place / "folder.wav").mkdir()
    result = run("speak", "Hi.", "-m", "absent.gguf", *options)
    assert is_one_error_line(result) and message in result.err


def test_two_writers_of_one_file_do_not_meet(place: Path) -> None:
    with whole_file(place / "a") as one, whole_file(place / "a") as two:
        assert one != two and {one.parent, two.parent} == {place}
        one.write_text("1")
        two.write_text("2")
    assert (place / "a").read_text() == "1" and len(list(place.iterdir())) == 1


# -- wording -----------------------------------------------------------------------------------------------------------


def test_the_librarys_parameters_are_flags_on_the_command_line() -> None:
    with pytest.raises(OptionError) as caught:
        SpeechOptions(sub_temperature=0)
    assert (
        str(caught.value) == "`sub_temperature` must be above 0, not 0: for the likeliest code each time use `greedy`"
    )
    assert in_flags(str(caught.value)) == (
        "--sub-temperature must be above 0, not 0: for the likeliest code each time use --greedy"
    )
    assert in_flags("a `word` of `nobody`") == "a `word` of `nobody`"


def test_every_flag_exists() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    every = [*commands.values(), *commands["voice"].commands.values()]
    assert {*FLAGS.values()} <= {name for each in every for parameter in each.params for name in parameter.opts}


def test_no_message_of_the_library_names_a_flag() -> None:
    """In any string that is not a docstring."""
    import ast

    found = set()
    for path in [*(ROOT / "qwen3tts_gguf").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]:
        name = path.relative_to(ROOT / path.relative_to(ROOT).parts[0]).as_posix()
        if name.startswith(("cli/", "server/")):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found |= {
            name
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
            if re.search(r"(^|[ (])--[a-z]{3}", node.value)
        }
    assert not found
