"""`speak --lines`: a file per line, equal to the line spoken alone, resumed after a stop."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import test_cli
import test_console

run = test_cli.run
Run = test_cli.Run
NANO = ("--model", "nano", "--voice", "f2")
LINES = "Seven three nine.\n\nThe box is red.\nWait ten days.\nSeven three nine.\n"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text(LINES, "utf-8")
    return path


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "lines.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.wav")}


def test_each_line_is_spoken_as_it_is_alone(run: Run, lines: Path, tmp_path: Path) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone.flac"
    assert run("speak", "--lines", lines, *NANO, "-o", out, "--format", "flac").code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "0001.flac", "0003.flac", "0004.flac", "0005.flac", "lines.csv"
    ]  # fmt: skip
    spoken = rows(out)
    assert {name: row["text"] for name, row in spoken.items()} == {
        "0001.flac": "Seven three nine.", "0003.flac": "The box is red.", "0004.flac": "Wait ten days.",
        "0005.flac": "Seven three nine.",
    }  # fmt: skip
    assert spoken["0001.flac"]["seed"] != spoken["0005.flac"]["seed"]
    for name in ("0003.flac", "0005.flac"):
        row = spoken[name]
        assert run("speak", row["text"], *NANO, "--seed", row["seed"], "-o", alone).code == 0
        assert alone.read_bytes() == (out / name).read_bytes()
        assert abs(soundfile.info(out / name).duration - float(row["seconds"])) < 0.01


def test_only_lines_that_changed_are_spoken_again(run: Run, lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ("speak", "--lines", lines, *NANO, "-o", out)
    assert run(*call).code == 0
    before = times(out)
    again = run(*call)
    assert "4 lines are there already" in again.err and times(out) == before
    lines.write_text(LINES.replace("red", "black"), "utf-8")
    (out / "0004.wav").unlink()
    with (out / "lines.csv").open("a", encoding="utf-8") as file:
        file.write("0001.wav,1")  # as a crash leaves it
    assert "2 lines are there already" in run(*call).err
    after = times(out)
    assert {name for name in after if after[name] == before[name]} == {"0001.wav", "0005.wav"}
    assert rows(out)["0003.wav"]["text"] == "The box is black."
    assert "4 lines are there already" in run(*call).err
    assert "lines -> " in run(*call, "--seed", 5).err and times(out)["0001.wav"] != before["0001.wav"]


def test_a_line_that_fails_does_not_stop_the_others(run: Run, tmp_path: Path) -> None:
    lines, out = tmp_path / "lines.txt", tmp_path / "out"
    lines.write_text("---\nSeven.\n", "utf-8")
    result = run("speak", "--lines", lines, *NANO, "-o", out)
    assert result.code == 1 and "0001.wav: there is nothing to pronounce" in result.err
    assert "1 of 2 lines failed" in result.err and list(times(out)) == ["0002.wav"]
    short = ("--max-frames", 2, "--retries", 0)
    assert run("speak", "--lines", lines, *NANO, "-o", tmp_path / "none", *short).code == 3
    assert not times(tmp_path / "none")
    assert run("speak", "--lines", lines, *NANO, "-o", tmp_path / "partial", *short, "--keep-partial").code == 3
    assert rows(tmp_path / "partial")["0002.wav"]["ended"] == "no"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_leaves_whole_files_only(run: Run, tmp_path: Path) -> None:
    """Sent when the first row is written, with other lines at work."""
    lines, out = tmp_path / "lines.txt", tmp_path / "out"
    lines.write_text("Seven three nine.\n" * 40, "utf-8")
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from qwen3tts_gguf.cli import line_files, main\n"
        "speak = line_files.LineFiles.speak\n"
        "def stopped(*args, **kwargs):\n"
        "    for row in speak(*args, **kwargs):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        yield row\n"
        "line_files.LineFiles.speak = stopped\n"
        "main()\n"
    )
    _, environment = test_console.command()
    call = [*map(str, ("speak", "--lines", lines, *NANO, "-o", out))]
    done = subprocess.run([sys.executable, "-c", code, *call], capture_output=True, env=environment, check=False)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"lines.csv", *times(out)} and 0 < len(times(out)) < 40
    for name, row in rows(out).items():
        assert abs(soundfile.info(out / name).duration - float(row["seconds"])) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give -o FOLDER"),
        (("-o", "-"), "give -o FOLDER"),
        (("-o", "x", "Hello."), "leave out the argument TEXT"),
        (("-o", "x", "--file", "y.txt"), "leave out one"),
        (("-o", "x", "--subtitles", "a.srt"), "leave them out with --lines"),
        (("-o", "lines.txt"), "this is a file"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_model_loads(
    run: Run, lines: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(lines.parent)
    result = run("speak", "--lines", lines, "--model", "missing.gguf", *arguments)
    assert result.code == 1 and message in result.err
