"""Plain English in what people read: README, docs, the help of every command, messages, docstrings and comments.

`DIALECT` lists words and phrases that this project once used and that readers stumbled over, with the reason. To add
one, fix what the test then finds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from qwen3tts_gguf.cli import app

ROOT = Path(__file__).parents[1]

UNITS = "ms|tokens?|codes?|bytes|kB|MB|positions|times|frames?|steps?|values"
DIALECT = {
    r"in place of": "say 'instead of'",
    r"(?:comes?|came) to no end|no end comes": "say 'never stops' or 'does not end'",
    rf"\b(?:{UNITS}) an? (?:frame|second|token|position|line|step|word|letter)\b": "a rate: say 'per frame'",
    r"\bone an? (?:line|frame|voice|text)\b": "a rate: say 'one per line'",
    r"\b(?:not|is|was|are) told\b(?! apart)": "a program does not tell: say 'not reported', 'unknown'",
    r"\btells? (?:of|what|which|whether|by)\b": "a program does not tell: say 'shows', 'prints', 'says'",
    r"\bsounded\b|\bcasting\b": "not the field's words: say 'decoded', 'compatibility'",
    r"\banew\b": "say 'again', or 'retried with a new seed'",
    r"(?:^|[.:;!?] |\*\*)[Ww]ho (?:has|wants|needs|reads|speaks|knows|calls|gives|asks)\b": "say 'if you want'",
    r"\bnobody (?:went|asked|wanted|reads?|told|waits)\b": "a riddle: say what is missing, or what happens",
    r"\bheld against\b|\bholds? [\w' ]+ against\b": "say 'compared with'",
    r"\bthe very same\b": "say 'the same' or 'identical'",
    r"\bto the bit\b": "say 'bit for bit' or 'bit-identical'",
    r"\bholds? (?:no|text|sound|SSML|NaN|numbers|one pair)\b": "a file contains, it does not hold",
    r"\b(?:is|are|was|were) of (?:another|other|a different) \w+": "say 'was made with another model', 'differs'",
    r"\bsounds? closer\b": "say 'the voice comes closer to the clip'",
    r"\bfetch(?:ed|es|ing)?\b": "say 'download'",
    r"\bled over\b": "the field's word is 'teacher-forced'",
    r"\bbarred\b": "say 'ignored' or 'suppressed'",
    r"\bdo(?:es)? not fit together\b": "say 'contradict each other'",
    r"\bcut short\b": "a file is 'truncated'",
    r"(?<!there )\bis no (?:folder|file|value|clip|model|voice|number)\b": "say 'is not a folder'",
    r"\bgo(?:es)? on beside\b|\bcomes? beside\b": "say 'next to', 'at the same time'",
    r"\bpasses? it over\b": "say 'ignores it'",
    r"\b(?:in|any|and|whatever|whose|its|other) company\b|[Cc]ompany (?:never|change|and)": "say 'other speeches'",
    r"\b[Ss]ound (?:build|compiler)|\bcompiled soundly\b": "a pun in a project about sound: say 'good'",
    r"\bmisspelt\b|\bwherefore\b|\bthereof\b|\bwhereof\b": "old-fashioned",
}
PROSE = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "MODEL.md"),
    *("benchmarks/LOG.md", "models/README.md", "models/nano/README.md", "models/voices/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))),
]
SOURCES = sorted([*(ROOT / "qwen3tts_gguf").rglob("*.py"), *(ROOT / "convert").rglob("*.py")])
COMMENTED = [*SOURCES, *sorted([*(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])]


def dialect(text: str) -> list[str]:
    """What of the list is in a text, with its reason. Code spans and blocks are not prose."""
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.DOTALL | re.MULTILINE)
    text = " ".join(text.split())
    return [
        f"...{text[max(0, found.start() - 40) : found.end() + 40]}...: {reason}"
        for pattern, reason in DIALECT.items()
        for found in re.finditer(pattern, text)
    ]


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for child in getattr(command, "commands", {}).values():
        yield from commands(child, f"{name} {child.name}")


def messages(tree: ast.AST) -> Iterator[str]:
    """What a source file may print or raise: texts given to errors, notes and consoles, as hints, and yielded."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("Note", "print", "NoEndOfSpeech", "Reason") or called.endswith("Error"):
                yield from map(literal, node.args)
            yield from (literal(given.value) for given in node.keywords if given.arg in ("hint", "help", "description"))
        elif (isinstance(node, (ast.Yield, ast.Return)) and node.value is not None) or isinstance(node, ast.Assign):
            yield literal(node.value)


def literal(node: ast.AST) -> str:
    """All text in an expression, in its order: an f-string's values are left out."""
    pieces = [each for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    return "".join(str(piece.value) for piece in sorted(pieces, key=lambda piece: (piece.lineno, piece.col_offset)))


@pytest.mark.parametrize("page", PROSE)
def test_the_pages_are_in_plain_english(page: str) -> None:
    assert not dialect((ROOT / page).read_text("utf-8"))


@pytest.mark.parametrize(("name", "command"), [*commands(typer.main.get_command(app), "qwen3tts")])
def test_the_help_is_in_plain_english(name: str, command: Any) -> None:
    texts = [command.help or "", *(getattr(parameter, "help", None) or "" for parameter in command.params)]
    assert not [found for text in texts for found in dialect(text)], name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_messages_are_in_plain_english(source: Path) -> None:
    assert not [found for text in messages(ast.parse(source.read_text("utf-8"))) for found in dialect(text)]


@pytest.mark.parametrize("source", COMMENTED, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_comments_are_in_plain_english(source: Path) -> None:
    if source.name == Path(__file__).name:
        pytest.skip("it quotes the list")
    text = source.read_text("utf-8")
    strings = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    docstrings = [literal(each) for each in strings if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    comments = re.sub(r"\n\s*# ", " ", text)
    comments = " ".join(re.findall(r"(?:^|\s)# (.*)", comments))
    assert not [found for each in (*docstrings, comments) for found in dialect(each)]


def test_the_search_finds_what_it_should() -> None:
    source = """
raise ModelFileError(f"{path}: it holds no "
                     "sound", hint="fetch it")
def problems():
    yield "the layers do not fit together"
"""
    found = [each for text in messages(ast.parse(source)) for each in dialect(text)]
    assert len(found) == 3
    assert dialect("The codec makes 16 codes a frame,\\nin place of one.") and not dialect("`in place of`")
