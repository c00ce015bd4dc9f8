"""What people bring, through the command line: a table of answers.

    python benchmarks/field.py FOLDER [--work FOLDER]

FOLDER holds make_clips.py and make_checkpoints.py, which make the clips and checkpoints. Everything else is made here.
A row is wrong when its exit code or its answer is not the expected one; then the exit code of this script is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'convert'}"}
PYTHON = [sys.executable, "-m", "qwen3tts_gguf"]


@dataclass
class Case:
    """One call of the command line."""

    row: int
    what: str
    arguments: list[str]
    expected: str = ""
    """Found in what it prints, stderr first; a pattern."""
    code: int = 0
    stdin: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)
    check: Callable[[], str] = lambda: ""
    """What else is true afterwards; the answer ends with it. Raises AssertionError."""


def run(case: Case, work: Path) -> tuple[bool, str]:
    """Whether the answer is the expected one, and the answer in one line."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'convert'}",
        "QWEN3TTS_VOICES": str(work / "voices"),
    }
    environment |= {"QWEN3TTS_MODEL": "nano", **case.environment}
    result = subprocess.run(
        [*PYTHON, *case.arguments], input=case.stdin, capture_output=True, env=environment, cwd=work, timeout=300
    )
    lines = (result.stderr + result.stdout).decode("utf-8", "replace").splitlines()
    lines = [re.sub(r"[│╭╮╰╯─]+", " ", line).strip() for line in lines]
    answer = " / ".join(
        line.replace(str(work), "").replace("|", "\\|") for line in lines if line and "hint: with" not in line
    )
    right = (
        result.returncode == case.code and re.search(case.expected, answer) is not None and "Traceback" not in answer
    )
    try:
        more = case.check()
    except (AssertionError, OSError) as error:
        right, more = False, f"{type(error).__name__}: {error}"
    return right, f"exit {result.returncode}: {answer[:300]}{' ' if more else ''}{more}"


def speak(row: int, text: str, *options: str, expected: str = "s of speech", code: int = 0, what: str = "") -> Case:
    return Case(row, what or f"speak {text!r}", ["speak", text, "--seed", "1", *options], expected, code)


def texts(work: Path) -> Iterator[Case]:
    yield speak(1, "-5 degrees")
    yield speak(1, "- Hello")
    yield speak(1, "-Hello", expected="after --, or on stdin", code=2)
    yield Case(1, "the same after --", ["speak", "--seed", "1", "--", "-Hello"], "s of speech")

    def same() -> str:
        assert (work / "plain.wav").read_bytes() == (work / "web.wav").read_bytes(), "other speech"
        return "(the same speech)"

    yield speak(2, "Seven three nine.", "-o", "plain.wav")
    web = "\ufeffSeven\u00a0three\u202f\u200bni\u00adne.\u2028"
    yield Case(2, ascii(web), ["speak", web, "--seed", "1", "-o", "web.wav"], "s of speech", check=same)
    yield Case(
        2, "UTF-16 on stdin", ["speak", "-", "--seed", "1"], "s of speech", stdin="Seven three nine.".encode("utf-16")
    )
    for text in ("Hi", "A", "B", "No", "AWS SQL HTML"):
        yield speak(3, text, expected="s of speech|no end of speech", code=0)
    yield speak(4, "Hello, brave new world.", expected="nano does not know: brave, world")
    for text in ("# One\n\n* two\n* [three](https://example.com)", "https://example.com/a?b=c",
                 "for i in range(9):\n\treturn i",
                 '<speak>One <break time="1s"/> two</speak>', "ONE TWO THREE FOUR"):  # fmt: skip
        yield speak(5, text)
    yield speak(5, "# One\n* *two*", "--clean", "markdown", what="the first with --clean markdown")
    for language in ("en-US", "en_GB.UTF-8", "eng"):
        yield speak(6, "Seven.", "-l", language, what=f"-l {language}")
    for language in ("zh_CN", "pt-BR", "jp", "cn"):
        model = ("--model", "other", "--max-frames", "2", "--retries", "0")
        yield speak(
            6,
            "Seven.",
            "-l",
            language,
            *model,
            expected="the speech did not end after 0.2 s",
            code=3,
            what=f"-l {language}",
        )


def clips(made: Path, work: Path) -> Iterator[Case]:
    def clip(row: int, name: str, expected: str, code: int = 0, *options: str) -> Case:
        arguments = ["speak", "Good evening Maria.", "--seed", "1", "--voice", str(made / name), *options]
        return Case(row, name + "".join(f" {option}" for option in options), arguments, expected, code)

    spoken = "s of speech"
    yield clip(7, "data0.wav", spoken)
    yield clip(7, "ffff.wav", spoken)
    yield clip(8, "antiphase.wav", "the channels cancel each other, one is inverted: channel 1 alone is used")
    yield clip(9, "silence31_then_speech.wav", rf"^(?!.*lasts).*{spoken}")
    create = ["voice", "create", "long", str(made / "long.wav"), "--force"]
    yield Case(10, "long.wav", create, r"its first 30 s are used, with as much of the transcript")
    yield Case(10, "its transcript", ["voice", "show", "long", "--json"], '"transcript": "好的 今天[^"]{80,140}"')
    yield clip(11, "notes.wav", "transcript: .*notes.txt")
    yield clip(11, "f2 half", "a transcript of 11 letters does not fit .*--x-vector-only", 0)
    yield clip(11, "bom.wav", "transcript: .*bom.txt")
    yield Case(11, "bom.txt's transcript", ["voice", "create", "bom", str(made / "bom.wav"), "--force"], "saved")
    yield Case(11, "as saved", ["voice", "show", "bom", "--json"], '"transcript": "Good evening Robert')
    yield clip(12, "quiet.wav", "is quiet: it peaks at -")
    yield clip(12, "half_second.wav", "lasts 0.5 s, too short")
    yield clip(12, "ulaw8k.wav", "no sound above 4 kHz")
    yield clip(13, "memo.m4a", "it is MPEG-4 .*ffmpeg -i .*memo.m4a -vn .*memo.wav", 1)
    yield clip(13, "browser.webm", "it is WebM or Matroska.*ffmpeg", 1)
    yield clip(13, "page.wav", "it is a web page", 1)
    yield clip(13, "art.mp3", spoken)
    for name in ("ext24.wav", "double.wav", "a b.wav", "100%.wav", "ünï 音.wav", "-dash.wav", "[b]x.wav"):
        yield clip(13, name, spoken)


def checkpoints(made: Path, work: Path) -> Iterator[Case]:
    def convert(row: int, name: str, expected: str = "", code: int = 0) -> Case:
        file = Path(name).name if "hub" not in name else "Qwen3-TTS-12Hz-0.6B-Base"
        wanted = expected or rf"{re.escape(file)}-Q8_0\.gguf"
        return Case(row, name, ["convert", str(made / name), "--out", "converted"], wanted, code)

    yield convert(14, "tf5_rope")
    yield convert(14, "tokenizers_backend")
    yield convert(15, "pad_token_text")
    yield convert(15, "sft")
    short = ("--max-frames", "2", "--retries", "0")
    lone = ["speak", "Hi.", "--model", "converted/sft-Q8_0.gguf", *short]
    yield Case(15, "sft speaks without --speaker", lone, "the speech did not end after 0.2 s", 3)
    yield convert(15, "sft_no_speakers", "spk_id names no speaker", 1)
    yield convert(15, "no_size")
    yield convert(15, "config_bom")
    yield convert(16, "readme_yaml", "warning: .*model card cannot be read")
    yield convert(17, "stale_single_beside_shards", "warning: .*model.safetensors is converted")
    hub = "hub/models--Qwen--Qwen3-TTS-12Hz-0.6B-Base"
    yield convert(18, f"{hub}/snapshots/fd4b" + "0" * 36)
    yield convert(18, hub)
    yield convert(18, "bin_only", "pytorch_model.bin is a pickle.*save_pretrained", 1)
    yield convert(18, "lora_only", "a LoRA adapter.*merge", 1)
    yield convert(18, "no_speech_tokenizer", "no folder speech_tokenizer.*copy it", 1)
    yield convert(18, "speech_tokenizer_is_a_link")
    yield convert(18, "with_optimizer")


def consoles(work: Path) -> Iterator[Case]:
    cp1252 = {"PYTHONIOENCODING": "cp1252"}
    clip = str(ROOT / "models" / "nano" / "voices" / "f2.flac")
    yield Case(19, "voice create 音", ["voice", "create", "音", clip, "--force"], "saved", environment=cp1252)
    for arguments in (["voice", "list"], ["voice", "list", "--json"], ["voice", "show", "音"]):
        yield Case(19, " ".join(arguments), arguments, r"\\u97f3", environment=cp1252)
    yield speak(21, "Seven.", "-o", "no/such.wav", expected="there is no folder no", code=1)
    yield speak(21, "Seven.", "-o", "x" * 251 + ".wav", what="a name of 255 bytes")
    voices = ("m1", "m3", "f2")
    for name in voices:
        source = str(ROOT / "models" / "nano" / "voices" / f"{name}.flac")
        yield Case(22, f"voice create {name}", ["voice", "create", name, source, "--force", "-q"])
    yield Case(22, "70%,30%", ["voice", "mix", "m1", "f2", "--weights", "70%,30%", "-o", "two", "--force"], "saved")
    yield Case(22, "three", ["voice", "mix", *voices, "-o", "three", "--force"], "saved")
    yield speak(22, "Seven three nine.", "--voice", "three")
    yield speak(22, "Seven.", "--save-voice", "three", expected="take another name, or delete that voice", code=1)


def streams(work: Path) -> Iterator[tuple[int, str, bool, str]]:
    """What needs a process of its own: streams into files, and signals."""
    for how, mode in (("> r.wav", "wb"), (">> r.wav", "ab")):
        path = work / f"r-{mode}.wav"
        path.unlink(missing_ok=True)
        with path.open(mode) as file:
            line = [*PYTHON, "speak", "Seven three nine.", "--model", "nano", "-q", "-o", "-"]
            subprocess.run(line, stdout=file, env=OURS, check=True, cwd=work)
        riff, data = struct.unpack("<I", path.read_bytes()[4:8])[0], struct.unpack("<I", path.read_bytes()[40:44])[0]
        right = (riff, data) == (
            (path.stat().st_size - 8, path.stat().st_size - 44) if mode == "wb" else (2**32 - 1,) * 2
        )
        yield 20, f"speak -o - {how}", right, f"{path.stat().st_size} bytes, sizes {riff} and {data}"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        folder = Path(tempfile.mkdtemp(dir=work))
        line = [*PYTHON, "speak", "One two three. " * 200, "--model", "nano", "-o", str(folder / "long.wav")]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, env=OURS, cwd=work)
        while process.poll() is None and not any(folder.iterdir()):
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        left = [path.name for path in folder.iterdir()]
        right = process.returncode == code and not left and b"Traceback" not in errors
        yield 21, number.name, right, f"exit {process.returncode}, files left: {left}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds make_clips.py and make_checkpoints.py")
    parser.add_argument("--rows", help="only these: 1,2,3")
    parser.add_argument("--work", type=Path, help="where everything is made; default: a temporary folder")
    arguments = parser.parse_args()
    work = (arguments.work or Path(tempfile.mkdtemp())).resolve()
    work.mkdir(parents=True, exist_ok=True)
    for maker, target in (("make_clips.py", "clips"), ("make_checkpoints.py", "checkpoints")):
        line = [sys.executable, str(arguments.folder.resolve() / maker), str(work / target)]
        (work / target).mkdir(exist_ok=True)
        subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    f2 = work / "clips" / "f2 half"
    f2.write_bytes((ROOT / "models" / "nano" / "voices" / "f2.flac").read_bytes())
    f2.with_suffix(".txt").write_text("Good evening\n")
    subprocess.run(
        [*PYTHON, "convert", str(work / "checkpoints" / "_base"), "--out", str(work / "other"), "-q"],
        env=OURS, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    wanted = {int(row) for row in arguments.rows.split(",")} if arguments.rows else None
    wrong = 0
    print("| row | what | right | answer |\n|---|---|---|---|")

    def show(row: int, what: str, right: bool, answer: str) -> None:
        nonlocal wrong
        wrong += not right
        what = what.replace(str(work), "").replace("|", "\\|").replace("\n", "\\n")
        print(f"| {row} | {what} | {'yes' if right else '**NO**'} | {answer} |", flush=True)

    sources = (texts(work), clips(work / "clips", work), checkpoints(work / "checkpoints", work), consoles(work))
    for cases in sources:
        for case in cases:
            if wanted is None or case.row in wanted:
                show(case.row, case.what, *run(case, work))
    if wanted is None or wanted & {20, 21}:
        for answer in streams(work):
            show(*answer)
    print(f"\n{wrong} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
