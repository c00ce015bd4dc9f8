"""`qwen3tts batch` as processes: killed and gone on with, stopped, and several on one folder."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import N_ROWS, made_unbroken, n_made, require_as_unbroken, started, table_of, wait_for, write_csv

from qwen3tts_gguf import TTS


@pytest.fixture(scope="module")
def nano() -> Iterator[TTS]:
    with TTS("nano", n_threads=2, n_lanes=4) as tts:
        yield tts


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("lines") / "lines.csv", table_of(N_ROWS))


@pytest.fixture(scope="module")
def unbroken(lines: Path, nano: TTS) -> Path:
    return made_unbroken(nano, lines)


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
