"""What README.md shows is run, on tiny files: every `qwen3tts` command, and the Python.

A block of shell lines runs in a folder of its own, where `models/` holds nano and the one Base model that README calls
by its released name, `ref.wav` and `other.wav` are clips, and the voices "anna" and "ben" are kept. PLACES maps what
else README names; NOT_RUN lists what is not run, and why.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import soundfile
import test_cli
import tiny

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import VoiceStore, tts
from qwen3tts_gguf.cli import app
from qwen3tts_gguf.engine import plan
from qwen3tts_gguf.measure import verification

Pair = Callable[..., ConvertedPair]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BASE = "models/Qwen3-TTS-12Hz-0.6B-Base-Q8_0.gguf"
PLACES = {  # as README has it -> size and type of the tiny model that stands in, or a file
    "models/…": BASE,
    "models/Qwen3-TTS-12Hz-0.6B-CustomVoice-Q8_0.gguf": ("tiny", "custom_voice"),
    "models/Qwen3-TTS-12Hz-1.7B-CustomVoice-Q8_0.gguf": ("tiny-1.7b", "custom_voice"),
    "models/Qwen3-TTS-12Hz-1.7B-VoiceDesign-Q8_0.gguf": ("tiny-1.7b", "voice_design"),
    "models/Qwen3-TTS-12Hz-0.6B-Base-F32.gguf": BASE,
    "ref.flac": "ref.wav",
}
NOT_RUN = {
    "qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base": "downloads a released checkpoint",
    "qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base --type f32 --codec-type f32": "the same",
}
INSTALLATION = "pip install . &&"  # the block after which no model is there but nano
# Lines of an installation and of listening, which leave nothing of ours to test.
FOREIGN = re.compile(r"(python3 -m venv|\. \.venv/bin/activate|pip install|python -m pytest|aplay)\b")

run = test_cli.run


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """The commands of a block, one each, without comments; a pipe stays in its command."""
    lines = (re.sub(r"\s+#.*", "", line) for line in block.splitlines())
    return [command for line in lines for command in line.split(" && ") if command]


def qwen3tts_commands() -> list[str]:
    return [command for block in blocks("sh") for command in commands(block) if "qwen3tts" in command]


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Models that say two frames, whatever the text is."""
    return partial(pair, ends="at-once")


@pytest.fixture
def place(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """place(block) -> the folder the block expects, to work in"""

    def make(block: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("QWEN3TTS_VOICES", str(tmp_path / "voices"))
        monkeypatch.setattr(plan, "default_threads", lambda: 1)
        monkeypatch.setattr(verification, "TEXTS", verification.TEXTS[:1])
        Path("models").mkdir()
        Path("models/nano").symlink_to(ROOT / "models/nano")
        if INSTALLATION not in block:
            os.link(pair().talker, BASE)
            os.link(pair().mmproj, f"models/mmproj-{Path(BASE).name}")
        for name, n_samples in (("ref.wav", 47_000), ("other.wav", 40_000)):
            soundfile.write(name, tiny.reference_clip(n_samples), 24_000)
        if "voice create" not in block:
            model, store = tts.TTS(pair().talker), VoiceStore(tmp_path / "voices")
            for name in ("anna", "ben"):
                store.save(name, model.voice_encoder.encode(tiny.reference_clip(), transcript="What is said."))

    return make


def carried_out(command: str, run: test_cli.Run, pair: Pair) -> None:
    """One command of README, in this process."""
    first, *others = command.split(" | ")
    stdin = b""
    if first.startswith("echo "):
        stdin, first = shlex.split(first)[1].encode() + b"\n", others.pop(0)
    assert all(FOREIGN.match(other) for other in others)
    program, *arguments = shlex.split(first)
    assert program == "qwen3tts"
    for i, argument in enumerate(arguments):
        stand_in = PLACES.get(argument, argument)
        arguments[i] = (
            stand_in if isinstance(stand_in, str) else str(pair(size=stand_in[0], model_type=stand_in[1]).talker)
        )
    result = run(*arguments, stdin=stdin)
    assert result.code == 0, f"{command}: {result.err}"
    for option in ("-o", "--codes"):  # what it says it writes is there
        if option in arguments and "mix" not in arguments:
            output = arguments[arguments.index(option) + 1]
            assert len(result.out) > 44 if output == "-" else Path(output).stat().st_size


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.splitlines()[0][:60])
def test_shell_recipe(block: str, place: Callable[[str], None], run: test_cli.Run, pair: Pair) -> None:
    place(block)
    for command in commands(block):
        if command in NOT_RUN or FOREIGN.match(command):
            continue
        carried_out(command, run, pair)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_recipe(block: str, place: Callable[[str], None]) -> None:
    place(block)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["samples"].shape == (1920,)  # type: ignore[attr-defined]


def test_no_command_is_left_out() -> None:
    """Each is in a block that is run; what is not run is listed above, and still there."""
    shown = qwen3tts_commands()
    assert len(shown) > 20
    assert README.count("```") == 2 * (len(blocks("sh")) + len(blocks("python")))
    for command in NOT_RUN:
        assert command in shown
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    assert set(re.findall(r"`qwen3tts (\w+)", README)) <= known


def test_every_way_to_speak_has_a_recipe() -> None:
    speaking = "\n".join(qwen3tts_commands())
    clones = ["--voice ref.wav --ref-text", "--x-vector-only", "voice create", "--voice anna", "voice mix"]
    others = ["--speaker vivian\n", "--speaker ryan --instruct", "VoiceDesign-Q8_0.gguf --instruct", "--save-voice"]
    for way in [*clones, *others, "--layout whole", "--layout stepwise", "codec encode", "codec decode"]:
        assert way in speaking


def test_the_opening_commands_are_what_ci_runs() -> None:
    job, tests = (commands(block) for block in blocks("sh")[:2])
    environment = ["python3 -m venv .venv", ". .venv/bin/activate"]
    assert job[:2] == tests[:2] == environment
    assert job[2] == "pip install ." and tests[2:] == ["pip install '.[dev]'", "python -m pytest"]
    ci = [line.replace(" --quiet", "") for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert [line for line in ci if line in tests] == tests[2:]


def test_no_line_is_too_long_to_read() -> None:
    opening = {" && ".join(commands(block)) for block in blocks("sh")[:2]}
    assert [line for line in README.splitlines() if len(line) > 140 and line not in opening] == []
