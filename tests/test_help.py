"""`--help`: laid out for 80 columns, every option explained, in a panel of its purpose."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args, get_type_hints

import command_page
import pytest
import typer
from typer.testing import CliRunner

from qwen3tts_gguf.cli import app, panels

PANELS = {
    panels.MODEL,
    panels.VOICE,
    panels.TEXT,
    panels.OUTPUT,
    panels.SAMPLING,
    panels.MACHINE,
    panels.TABLE,
    panels.WORK,
    "Server",
    "Thresholds",
}


def _commands(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield name, command
    for child in getattr(command, "commands", {}).values():
        yield from _commands(child, (*name, child.name))


COMMANDS = dict(_commands(typer.main.get_command(app)))
LEAVES = [(name, command) for name, command in COMMANDS.items() if not hasattr(command, "commands")]
OPTIONS = [
    pytest.param(option, id=" ".join((*name, option.opts[0])))
    for name, command in LEAVES
    for option in command.params
    if option.param_type_name == "option"
]


def _help(name: tuple[str, ...], columns: int) -> str:
    result = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": str(columns), "TERM": "xterm"})
    assert result.exit_code == 0
    return result.output


def _words(text: str) -> str:
    """The words alone: boxes differ between versions of typer and rich."""
    return " ".join(re.sub(r"[^\x21-\x7e]+", " ", text).split())


@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_help_fits_the_terminal(name: tuple[str, ...], columns: int) -> None:
    assert max(map(len, _help(name, columns).splitlines())) <= columns


@pytest.mark.parametrize("columns", [80, 110])
@pytest.mark.parametrize("name", [name for name, _ in LEAVES], ids=" ".join)
def test_paragraphs_fill_the_lines_they_are_given(name: tuple[str, ...], columns: int) -> None:
    """A line of prose breaks only where its next word would not fit."""
    prose = re.split("[╭+]-?─?", _help(name, columns))[0].splitlines()
    for line, following in itertools.pairwise(prose):
        is_example = line.startswith("   ") or following.startswith("   ")
        if line.strip() and following.strip() and not is_example and "Usage:" not in line:
            word = following.split()[0]
            assert len(line.rstrip()) + 1 + len(word) > columns - 2, f"{line!r} breaks before {word!r}"


@pytest.mark.parametrize("name", [name for name, _ in LEAVES], ids=" ".join)
def test_help_of_a_command_has_an_example(name: tuple[str, ...]) -> None:
    assert f"qwen3tts {' '.join(name)}" in _words(COMMANDS[name].help)
    printed = _help(name, 80).partition("Arguments")[0]
    assert re.search(f"^   .*qwen3tts {' '.join(name)}", printed, re.MULTILINE), "the example is not indented"


def test_examples_are_commands_that_are_understood() -> None:
    """Each example parses: no option that does not exist, no argument too many."""
    for name, command in LEAVES:
        for line in re.findall(r"^ +(?:.*\| )?qwen3tts (.+?)(?: \|.*)?$", command.help or "", re.MULTILINE):
            arguments = shlex.split(line)
            n = next(n for n in (2, 1) if tuple(arguments[:n]) in COMMANDS)
            COMMANDS[tuple(arguments[:n])].make_context(name, arguments[n:], resilient_parsing=False)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_has_a_sentence_a_panel_and_a_named_value(option: Any) -> None:
    assert (option.help and option.help[0].isupper()) or option.help.startswith((".", "`"))
    assert option.help.rstrip().endswith(".")
    assert option.rich_help_panel in PANELS
    assert option.is_flag or option.metavar.isupper()


def test_no_type_is_shown_beside_a_switch_or_an_argument() -> None:
    for name in COMMANDS:
        printed = _help(name, 80)
        assert "bool" not in _words(printed).lower()
        assert not re.search("<(path|str|list)", printed)


def test_an_option_names_its_choices() -> None:
    """In its sentence: a list of them in the column of values would leave no room for the sentence."""
    n = 0
    for _, command in LEAVES:
        types = get_type_hints(command.callback)
        for option in (each for each in command.params if each.name in types):
            for each in (types[option.name], *get_args(types[option.name])):
                if isinstance(each, type) and issubclass(each, Enum):
                    n += 1
                    assert all(re.search(rf"\b{choice.value}\b", option.help) for choice in each), option.opts[0]
    assert n >= 7


def test_speak_shows_what_it_takes_in_panels() -> None:
    words = _words(_help(("speak",), 110))
    for expected in (
        "--temperature X Talker temperature. Default: from the model.",
        "--seed N [x>=0] Seed; the same seed gives the same speech.",
        "--x-vector-only Clone with the speaker vector only",
        "-o FILE File, its format by suffix: .wav, .flac, .ogg, .opus, .mp3, .pcm. - streams 16-bit WAV to stdout.",
    ):
        assert expected in words
    assert {panels.MODEL, panels.VOICE, panels.TEXT, panels.OUTPUT, panels.SAMPLING, panels.MACHINE} <= {
        option.rich_help_panel for option in COMMANDS[("speak",)].params if option.param_type_name == "option"
    }


def test_the_shell_completes_commands_and_voices() -> None:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "_QWEN3TTS_COMPLETE": "complete_bash", "COMP_WORDS": "qwen3tts speak --voice mi", "COMP_CWORD": "3",
    }  # fmt: skip
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'qwen3tts'; from qwen3tts_gguf.cli import main; main()"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["mika"], result.stderr


def test_the_page_of_commands_is_as_the_help_is() -> None:
    assert command_page.PAGE.read_text("utf-8") == command_page.page(), "run `just help`"


def test_help_loads_neither_llama_cpp_nor_numpy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from qwen3tts_gguf.cli import app\n"
        "CliRunner().invoke(app, ['speak', '--help'])\n"
        "print([name for name in ('llama_cpp', 'numpy', 'soundfile', 'tokenizers') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "[]", result.stderr
