"""What README.md and the pages in docs/ show is run, on tiny files: every `qwen3tts` command, and the Python.

A block of shell lines runs in a folder of its own, where `models/` holds nano and the one Base model that the pages
call by its released name, `ref.wav` and `other.wav` are clips, texts, a table, and the voices "anna" and "ben"
are saved. PLACES maps what else the pages name; NOT_RUN lists what is not run, and why. Blocks of another language
than sh and python are for other systems, and are not run.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import soundfile
import test_cli
import tiny
import typer

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import VoiceStore, tts
from qwen3tts_gguf.cli import app
from qwen3tts_gguf.engine import plan
from qwen3tts_gguf.measure import verification

Pair = Callable[..., ConvertedPair]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.name: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
NOT_RUN_LANGUAGES = ("console", "dockerfile")
CHECKED_LINKS = ("*.md", "docs/*.md", "benchmarks/*.md", "models/*.md", "models/*/README.md", "tests/*/README.md")
FOREIGN_FILES = {
    "/openapi.json": "a page of the server",
    "KEY.json": "in the archives that batch writes",
    "cli/NAME.py": "of any name",
    "conversion/qwen3tts.py": "llama.cpp's",
    "make_clips.py": "the user's",
    "make_checkpoints.py": "the user's",
}
BASE = "models/Qwen3-TTS-12Hz-0.6B-Base-Q8_0.gguf"
PLACES = {  # as README has it -> size and type of the tiny model that stands in, or a file
    "models/…": BASE,
    "models/Qwen3-TTS-12Hz-0.6B-Base-Q4_K_M.gguf": BASE,
    "models/Qwen3-TTS-12Hz-0.6B-CustomVoice-Q8_0.gguf": ("tiny", "custom_voice"),
    "models/Qwen3-TTS-12Hz-1.7B-CustomVoice-Q8_0.gguf": ("tiny-1.7b", "custom_voice"),
    "models/Qwen3-TTS-12Hz-1.7B-VoiceDesign-Q8_0.gguf": ("tiny-1.7b", "voice_design"),
    "models/Qwen3-TTS-12Hz-0.6B-Base-F32.gguf": BASE,
    "ref.flac": "ref.wav",
}
NOT_RUN = {
    "qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base --type q4_k_m": "downloads a released checkpoint",
    "qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base --type f32 --codec-type f32": "the same",
}
INSTALLATION = "pip install . &&"  # the block after which no model is there but nano
# Lines of an installation and of listening, which leave nothing of ours to test.
FOREIGN = re.compile(
    r"(python3 -m venv|\. \.venv/bin/activate|(CXXFLAGS=\"[^\"]*\" )?pip install|python -m pytest|aplay|tail)\b"
)

run = test_cli.run


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def all_blocks(language: str) -> list[Any]:
    """Every block of every page, named after its page and its first line."""
    return [
        pytest.param(block, id=f"{name}: {block.splitlines()[0][:60]}")
        for name, page in PAGES.items()
        for block in blocks(language, page)
    ]


def commands(block: str) -> list[str]:
    """The commands of a block, one each, without comments; a pipe stays in its command."""
    lines = (re.sub(r"\s+#.*", "", line) for line in block.replace("\\\n", "").splitlines())
    return [command for line in lines for command in line.split(" && ") if command]


def qwen3tts_commands() -> list[str]:
    every = (command for page in PAGES.values() for block in blocks("sh", page) for command in commands(block))
    return [command for command in every if "qwen3tts" in command]


@pytest.fixture
def pair(pair: Pair) -> Pair:
    """Models that speak two frames, whatever the text is."""
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
        Path("story.txt").write_text("Good morning.", "utf-8")
        Path("lines.csv").write_text("sentence\nSeven.\nThree nine.\n", "utf-8")
        Path("sentences.txt").write_text("Good morning.\nGood night.\n", "utf-8")
        if "voice create" not in block:
            model, store = tts.TTS(pair().talker), VoiceStore(tmp_path / "voices")
            for name in ("anna", "ben"):
                store.save(name, model.voice_encoder.encode(tiny.reference_clip(), transcript="The words of the clip."))

    return make


def carried_out(command: str, run: test_cli.Run, pair: Pair) -> None:
    """One command of a page, in this process."""
    first, *others = command.split(" | ")
    stdin = b""
    if " < " in first:
        first, file = first.split(" < ")
        stdin = Path(file).read_bytes()
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


@pytest.mark.parametrize("block", all_blocks("sh"))
def test_shell_recipe(block: str, place: Callable[[str], None], run: test_cli.Run, pair: Pair) -> None:
    place(block)
    for command in commands(block):
        if command in NOT_RUN or FOREIGN.match(command):
            continue
        carried_out(command, run, pair)


@pytest.mark.parametrize("block", all_blocks("python"))
def test_python_recipe(block: str, place: Callable[[str], None]) -> None:
    place(block)
    written = re.findall(r'soundfile\.write\("([^"]+)"', block)
    names: dict[str, Any] = {}
    exec(compile(block, "a page", "exec"), names)
    assert all(Path(name).stat().st_size > 2 * 1920 for name in written)
    if "tts.stream(" in block:
        assert names["samples"].shape == (1920,)


def test_no_command_is_left_out() -> None:
    """Each is in a block that is run; what is not run is listed above, and still there."""
    shown = qwen3tts_commands()
    assert len(shown) > 40
    for name, page in PAGES.items():
        found = sum(len(blocks(language, page)) for language in ("sh", "python", *NOT_RUN_LANGUAGES))
        assert page.count("```") == 2 * found, name
    for command in NOT_RUN:
        assert command in shown
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    known |= {group.name for group in app.registered_groups}
    assert {name for page in PAGES.values() for name in re.findall(r"`qwen3tts (\w+)", page)} <= known


def test_every_kind_of_speech_has_a_recipe() -> None:
    speaking = "\n".join(qwen3tts_commands())
    clones = ["--voice ref.wav --ref-text", "--x-vector-only", "voice create", "--voice anna", "voice mix"]
    others = ["--speaker vivian\n", "--speaker ryan --instruct", "VoiceDesign-Q8_0.gguf --instruct", "--save-voice"]
    for example in [*clones, *others, "--layout whole", "--layout stepwise", "codec encode", "codec decode"]:
        assert example in speaking


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


def headings(page: str) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_to_files_and_headings_that_exist() -> None:
    paths = [path for pattern in CHECKED_LINKS for path in sorted(ROOT.glob(pattern))]
    for path in paths:
        for target in re.findall(r"\]\(([^()\s]+)\)", path.read_text("utf-8")):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in headings(there.read_text("utf-8")), f"{path.name}: {target}"


def test_files_named_in_the_pages_exist() -> None:
    folders = "qwen3tts_gguf|convert|tests|benchmarks|docs|models/nano|models/voices"
    for path in (path for pattern in CHECKED_LINKS for path in sorted(ROOT.glob(pattern))):
        for name in re.findall(rf"`((?:{folders})/[\w./-]*)`", path.read_text("utf-8")):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


def test_scripts_and_pages_named_in_the_pages_exist() -> None:
    """By their last names: a page may leave out the folders."""
    folders = ("qwen3tts_gguf", "convert", "tests", "benchmarks", "docs", "models")
    known = {path.name for path in ROOT.iterdir()} | {p.name for folder in folders for p in (ROOT / folder).rglob("*")}
    for path in (path for pattern in CHECKED_LINKS for path in sorted(ROOT.glob(pattern))):
        text = re.sub(r"\w+://\S+|^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for name in re.findall(r"(?<![\w./-])[\w./-]+\.(?:py|md|sh|json)\b", text):
            assert name in FOREIGN_FILES or name.rpartition("/")[2] in known, f"{path.name}: {name}"


def test_recipes_named_in_the_pages_exist() -> None:
    recipes = set(re.findall(r"^([a-z]+)\b.*:$", (ROOT / "justfile").read_text(), re.MULTILINE))
    named = {
        name
        for path in (path for pattern in CHECKED_LINKS for path in sorted(ROOT.glob(pattern)))
        for name in re.findall(r"(?:`|^)just ([a-z]+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {"gpu", "golden"} <= named <= recipes


def options(command: Any) -> set[str]:
    """The flags of a command and of those below it."""
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options(each) for each in getattr(command, "commands", {}).values()))


def test_options_named_in_the_text_exist() -> None:
    others = "--help --cpus --no-deps --no-cache-dir --force-reinstall --install"  # of docker, pip and xcode-select
    known = options(typer.main.get_command(app)) | set(others.split())
    for name, page in PAGES.items():
        text = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
        named = {flag for code in re.findall(r"`([^`]+)`", text) for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", code)}
        assert named <= known, name
