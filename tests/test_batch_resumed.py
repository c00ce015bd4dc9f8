"""`qwen3tts batch` as processes: killed and gone on with, stopped, and several on one folder."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from batches import BAD, N_ROWS, ROOT, made, manifest, table_of, write_csv

from qwen3tts_gguf import TTS
from qwen3tts_gguf.batch.job import Job


@pytest.fixture(scope="module")
def nano() -> Iterator[TTS]:
    with TTS("nano", n_threads=2, n_lanes=4) as tts:
        yield tts


def samples_of(place: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {row["id"]: soundfile.read(place / row["audio"])[0] for row in manifest(place) if row["audio"]}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("lines") / "lines.csv", table_of(N_ROWS))


@pytest.fixture(scope="module")
def unbroken(lines: Path, nano: TTS) -> Path:
    job = Job(str(lines), text="line", id="key", voice_column="who", shard_rows=20)
    made(nano, job, lines.parent / "unbroken")
    return lines.parent / "unbroken"


def started(lines: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    columns = ("--text", "line", "--id", "key", "--voice-column", "who", "--shard-rows", "20")
    command = [sys.executable, "-m", "qwen3tts_gguf", "batch", str(lines), "-o", str(out), "--model", "nano"]
    command += ["--voices", str(out.with_name("voices")), "--lanes", "4"]  # not those of the user
    return subprocess.Popen(
        [*command, *columns, *more], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip


def n_made(out: Path) -> int:
    """Rows that are made, counted from outside."""
    return len([*out.glob("audio/*/*.flac")])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.01)


def require_as_unbroken(out: Path, unbroken: Path) -> None:
    rows, expected = manifest(out), manifest(unbroken)
    assert [row["id"] for row in rows] == [f"row-{i}" for i in range(N_ROWS)]
    without_model = [{**row, "model": ""} for row in rows]
    assert without_model == [{**row, "model": ""} for row in expected]
    assert {int(row["id"][4:]) for row in rows if row["error"]} == {*BAD}
    found, wanted = samples_of(out), samples_of(unbroken)
    assert all(np.array_equal(found[id], wanted[id]) for id in wanted)
    names = [path.name for path in out.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith(".part")]
    assert len([name for name in names if name.endswith(".flac")]) == N_ROWS - len(BAD)


def test_killed_five_times_nothing_is_lost_or_made_twice(lines: Path, unbroken: Path, tmp_path: Path) -> None:
    draw, out = random.Random(5), tmp_path / "out"
    for _ in range(5):
        enough = n_made(out) + draw.randrange(1, 12)
        process = started(lines, out)
        wait_for(lambda: n_made(out) >= enough, process)  # noqa: B023
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob("audio/*/*.flac")}
    process = started(lines, out)
    error = process.communicate()[1].decode()
    assert process.returncode == 5, error
    assert f"{N_ROWS} rows done, 3 of them failed" in error
    require_as_unbroken(out, unbroken)
    again = [path for path in before if path.stat().st_mtime_ns != before[path]]
    assert len(again) <= 6  # those that were being written when the last kill came: 4 lanes and 2 spare threads


def test_three_processes_share_a_folder(lines: Path, unbroken: Path, tmp_path: Path) -> None:
    processes = [started(lines, tmp_path / "out", "--shards", f"{k}/3", "--threads", "1") for k in (1, 2, 3)]
    errors = [process.communicate()[1].decode() for process in processes]
    assert {process.returncode for process in processes} <= {0, 5}, errors  # by whether its own shards have bad rows
    require_as_unbroken(tmp_path / "out", unbroken)


def test_two_processes_without_shards_share_the_work_too(lines: Path, unbroken: Path, tmp_path: Path) -> None:
    processes = [started(lines, tmp_path / "out", "--threads", "1") for _ in range(2)]
    errors = [process.communicate()[1].decode() for process in processes]
    assert {process.returncode for process in processes} == {5}, errors
    require_as_unbroken(tmp_path / "out", unbroken)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_batch_prints_how_to_continue(number: signal.Signals, code: int, lines: Path, tmp_path: Path) -> None:
    process = started(lines, tmp_path / "out")
    wait_for(lambda: n_made(tmp_path / "out") > 2, process)
    process.send_signal(number)
    assert "the same command continues" in process.communicate()[1].decode()
    assert process.returncode == code
