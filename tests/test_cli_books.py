"""`read BOOK`: files, tags, playlists, subtitles and one .m4b; killed and resumed, and changed, as if never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import epubs
import pytest
import soundfile
import test_cli

from qwen3tts_convert import ConvertedPair

mutagen: Any = pytest.importorskip("mutagen")
run = test_cli.run
Run = test_cli.Run

NANO = ("--model", "nano", "--voice", "f2", "--threads", "2", "--levels", "2", "--split", "sentence")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return epubs.write_epub(tmp_path / "book.epub", epubs.PAGES, nav=epubs.NAV)


def sounds(folder: Path) -> dict[str, bytes]:
    return {path.name: soundfile.read(path, dtype="int16")[0].tobytes() for path in sorted(folder.glob("*.wav"))}


def test_the_list_needs_no_model(run: Run, book: Path) -> None:
    result = run("read", book, "--list", "--levels", "2")
    out = result.out.decode()
    assert result.code == 0 and "The Black Cat by Anna" in out and "Evening" in out and "total" in out


def test_killed_in_chapter_2_and_resumed_it_is_as_if_never_stopped(run: Run, book: Path, tmp_path: Path) -> None:
    call = ("read", book, *NANO, "--format", "wav")
    assert run(*call, "-o", tmp_path / "whole").code == 0
    # The process kills itself when the first passage of chapter 2 has been saved.
    code = (
        "import os, signal\n"
        "from qwen3tts_gguf.book import workplace\n"
        "save = workplace.Passages.save\n"
        "def killed(self, line, take):\n"
        "    save(self, line, take)\n"
        f"    if list(Path({str(tmp_path / 'resumed')!r}).glob('01 *.wav')): os.kill(os.getpid(), signal.SIGKILL)\n"
        "workplace.Passages.save = killed\n"
        "from pathlib import Path\n"
        "from qwen3tts_gguf.cli import main\n"
        "main()\n"
    )
    out = tmp_path / "resumed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    arguments = [sys.executable, "-c", code, *map(str, call), "-o", str(out)]
    assert subprocess.run(arguments, env=environment, capture_output=True).returncode == -signal.SIGKILL
    assert list(sounds(out)) == ["01 Part One. Morning.wav"]
    kept = {path: path.stat().st_mtime_ns for path in (out / ".qwen3tts" / "passages").glob("*/*.safetensors")}
    first = (out / "01 Part One. Morning.wav").stat().st_mtime_ns
    result = run(*call, "-o", out)
    assert result.code == 0 and "finished already: 1 of 3" in result.err
    assert sounds(out) == sounds(tmp_path / "whole")
    assert (out / "01 Part One. Morning.wav").stat().st_mtime_ns == first
    assert len(kept) > 1 and all(path.stat().st_mtime_ns == when for path, when in kept.items())
    assert not list(out.rglob(".*.part"))


def test_a_change_makes_again_only_what_it_changes(run: Run, tmp_path: Path) -> None:
    story, out = tmp_path / "story.md", tmp_path / "out"
    call = ("read", story, *NANO[:6], "--levels", "1", "--format", "wav", "-o", out)
    story.write_text("# One\n\nWait ten days.\n\n# Two\n\nMy name is Anna.\n", "utf-8")
    assert run(*call).code == 0
    before = sounds(out)
    story.write_text("# Three\n\nThank you.\n\n# One\n\nWait ten days.\n\n# Two\n\nThe box is red.\n", "utf-8")
    result = run(*call)
    assert result.code == 0 and "finished already: 1 of 3" in result.err
    assert "made earlier with another text, voice, model or options (1)" in result.err
    after = sounds(out)
    assert after["02 One.wav"] == before["01 One.wav"] and "03 Two.wav" in after
    assert mutagen.File(out / "02 One.wav").tags["TRCK"].text == ["2/3"]
    assert list(after) == ["01 Three.wav", "02 One.wav", "03 Two.wav"]
    again = run(*call)
    assert "finished already: 3 of 3" in again.err and "made earlier" not in again.err and sounds(out) == after


def test_passages_that_do_not_end_are_written_and_the_exit_code_is_3(
    run: Run, pair: Callable[..., ConvertedPair], tmp_path: Path
) -> None:
    story, out = tmp_path / "story.md", tmp_path / "out"
    story.write_text("# One\n\nWait.\n\n# Two\n\nGo.\n", "utf-8")
    model = pair("q4_0", "f16", model_type="custom_voice", ends="never").talker
    result = run("read", story, "--model", model, "--speaker", "serena", "--retries", "0", "--format", "wav", "-o", out)
    assert result.code == 3 and list(sounds(out)) == ["01 One.wav", "02 Two.wav"]
    assert "2 passages, the first of them in chapter 1, did not end" in result.err


@pytest.mark.parametrize("format", ["mp3", "opus", "flac", "wav"])
def test_files_have_tags_a_playlist_and_subtitles(run: Run, book: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    call = ("read", book, *NANO[:8], "--chapters", "2", "--format", format, "--subtitles", "srt", "-o", out)
    assert run(*call).code == 0
    file = mutagen.File(out / f"02 Evening.{format}")
    title = file.tags["TIT2"].text if format in ("mp3", "wav") else file.tags["title"]
    assert title == ["Evening"]
    assert "02 Evening." + format in (out / "The Black Cat.m3u8").read_text("utf-8")
    assert "Thank you very much, David." in (out / "02 Evening.srt").read_text("utf-8")


def test_one_m4b_has_chapters_and_tags(run: Run, book: Path, tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av")
    out = tmp_path / "book.m4b"
    assert run("read", book, *NANO, "-o", out).code == 0
    with av.open(str(out)) as file:
        chapters = file.chapters()
        seconds = file.duration / 1e6
    assert [chapter["metadata"]["title"] for chapter in chapters] == ["Part One. Morning", "Evening", "Part Two. Night"]
    last = chapters[-1]
    assert abs(float(last["end"] * last["time_base"]) - seconds) < 0.1
    assert chapters[0]["end"] == chapters[1]["start"]
    tags = mutagen.File(out).tags
    assert tags["\xa9alb"] == ["The Black Cat"] and tags["\xa9ART"] == ["Anna"] and bytes(tags["covr"][0]) == epubs.PNG
    assert sorted(path.name for path in tmp_path.iterdir()) == [".book.qwen3tts", "book.epub", "book.m4b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no output given"),
        (("-o", "x.mp3"), "a book is a folder of files, or one .m4b"),
        (("-o", "x", "--chapters", "9"), "the book has 3"),
        (("-o", "x", "--subtitles", "srt", "--split", "line"), "leave out --split"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_model_loads(
    run: Run, book: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run("read", book, "--levels", "2", "--model", "missing", *arguments)
    assert result.code == 1 and message in result.err


def test_two_processes_do_not_make_one_book(book: Path, tmp_path: Path) -> None:
    from qwen3tts_gguf import UsageError
    from qwen3tts_gguf.book.workplace import Workplace

    with Workplace(tmp_path / "w").locked(), pytest.raises(UsageError, match="another process"):
        Workplace(tmp_path / "w").locked().__enter__()
