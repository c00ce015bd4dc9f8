"""`qwen3tts batch --ray`: two nodes of Ray's on this machine, and workers that are killed. `just ray` runs it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from batches import (
    N_ROWS,
    SENTENCES,
    made_unbroken,
    manifest,
    n_made,
    require_as_unbroken,
    started,
    table_of,
    wait_for,
    write_csv,
)

from qwen3tts_gguf import TTS

cluster_utils = pytest.importorskip("ray.cluster_utils")
pytest.importorskip("ray.data")


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    """For the nodes, and for the commands, which inherit them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("lines") / "lines.csv", table_of(N_ROWS))


@pytest.fixture(scope="module")
def unbroken(lines: Path) -> Path:
    with TTS("nano", n_lanes=4) as nano:
        return made_unbroken(nano, lines)


@pytest.fixture
def cluster(settings: None) -> Iterator[Any]:
    """Two nodes, of two processors and of one."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def on(cluster: Any, *more: str) -> tuple[str, ...]:
    return ("--ray", cluster.address, "--threads", "1", *more)


def workers() -> list[int]:
    """Processes of the nodes' in which a model speaks."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("_Actor" in word for word in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            pass
    return found


def test_a_worker_is_killed_and_no_row_is_lost_or_made_twice(
    cluster: Any,
    lines: Path,
    unbroken: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    process = started(lines, out, *on(cluster, "--workers", "3"))
    wait_for(lambda: n_made(out) > 20, process)
    found = workers()
    assert len(found) == 3
    before = {path: path.stat().st_mtime_ns for path in out.glob("audio/*/*.flac")}
    os.kill(found[0], signal.SIGKILL)
    error = process.communicate()[1].decode()
    assert process.returncode == 5, error
    assert f"{N_ROWS} rows done, 3 of them failed" in error
    require_as_unbroken(out, unbroken)
    again = [path for path in before if path.stat().st_mtime_ns != before[path]]
    assert len(again) <= 12  # those that it was just writing: two shards of 4 lanes and 2 spare threads each


def test_a_node_is_lost(cluster: Any, lines: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(lines, out, *on(cluster, "--workers", "3"))
    wait_for(lambda: n_made(out) > 10, process)
    cluster.remove_node(cluster.second, allow_graceful=False)
    error = process.communicate()[1].decode()
    assert process.returncode == 5, error
    require_as_unbroken(out, unbroken)


def test_the_command_is_killed_and_the_next_one_continues(
    cluster: Any,
    lines: Path,
    unbroken: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    process = started(lines, out, *on(cluster))
    wait_for(lambda: n_made(out) > 20, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = started(lines, out, *on(cluster))
    error = process.communicate()[1].decode()
    assert process.returncode == 5, error
    require_as_unbroken(out, unbroken)


def test_the_workers_need_no_clip_and_what_fails_is_one_line(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's folder is not the workers': a relative table and output are found, and clips are in OUT."""
    source = Path(__file__).parents[1] / "models/nano/voices/m1.flac"
    (tmp_path / "clip.flac").write_bytes(source.read_bytes())
    rows = [{"key": str(i), "line": SENTENCES[i % 5], "speaker": "clip.flac"} for i in range(12)]
    table = write_csv(tmp_path / "clips.csv", [*rows, {"key": "12", "line": "One.", "speaker": "no.flac"}])
    process = started(table, tmp_path / "plain")
    process.communicate()
    process = started(table, tmp_path / "out", *on(cluster))
    assert process.communicate()[1] is not None and process.returncode == 5
    rows_made = [{**row, "audio": None} for row in manifest(tmp_path / "out")]
    assert rows_made == [{**row, "audio": None} for row in manifest(tmp_path / "plain")]
    assert len([*(tmp_path / "out/voices").iterdir()]) == 1
    process = started(table, tmp_path / "stopped", *on(cluster, "--on-error", "stop"))
    error = process.communicate()[1].decode()
    assert process.returncode == 1 and "error: row '12': VoiceError" in error and "Traceback" not in error
    process = started(table, tmp_path / "large", "--ray", cluster.address, "--threads", "64")
    error = process.communicate()[1].decode()
    assert process.returncode == 1 and "no machine of the Ray cluster has 64 processors" in error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_leaves_no_worker(
    number: signal.Signals,
    code: int,
    cluster: Any,
    lines: Path,
    tmp_path: Path,
) -> None:
    process = started(lines, tmp_path / "out", *on(cluster))
    wait_for(lambda: n_made(tmp_path / "out") > 2, process)
    process.send_signal(number)
    assert "the same command continues" in process.communicate()[1].decode()
    assert process.returncode == code
    while workers():
        time.sleep(0.1)
