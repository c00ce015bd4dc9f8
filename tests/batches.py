"""What the tests of `qwen3tts batch` share: a table for nano, a batch from its start to its end, and its processes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from qwen3tts_gguf import TTS
from qwen3tts_gguf.batch.job import Job
from qwen3tts_gguf.batch.project import Project
from qwen3tts_gguf.batch.speaker import Speaker
from qwen3tts_gguf.batch.voices import VoiceBook
from qwen3tts_gguf.batch.work import work

ROOT = Path(__file__).parents[1]
SENTENCES = ("Seven.", "One.", "Nine.", "Seven three nine.", "Two.")
VOICES = ("f1", "f2", "m1", "m3", "us", "klatt")
BAD = {7: ("...", "f1"), 33: ("Seven.", "nobody"), 90: ("Seven.", "missing.wav")}
N_ROWS = 120


def table_of(n: int, bad: dict[int, tuple[str, str]] = BAD) -> list[dict[str, str]]:
    rows = [bad.get(i, (SENTENCES[i % 5], VOICES[i % 6])) for i in range(n)]
    return [{"key": f"row-{i}", "line": text, "speaker": voice} for i, (text, voice) in enumerate(rows)]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def made(tts: TTS, job: Job, place: Path, **more: Any) -> Project:
    """A batch from its start to its end, in this process."""
    project = Project.start(str(place), job, "a model")
    speaker = Speaker(tts, job, VoiceBook(tts, project.folder, job.table, None))
    work(project, speaker, range(project.n_shards), **more)
    project.finish()
    return project


def manifest(place: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (place / "manifest.jsonl").read_text("utf-8").splitlines()]


def made_unbroken(tts: TTS, lines: Path) -> Path:
    """What `started` is to make of a table, in one go."""
    job = Job(str(lines), text="line", id="key", voice_column="speaker", shard_rows=20)
    made(tts, job, lines.parent / "unbroken")
    return lines.parent / "unbroken"


def samples_of(place: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {row["id"]: soundfile.read(place / row["audio"])[0] for row in manifest(place) if row["audio"]}


def started(lines: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    columns = ("--text", "line", "--id", "key", "--voice-column", "speaker", "--shard-rows", "20")
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
