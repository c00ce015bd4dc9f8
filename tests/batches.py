"""What the tests of `qwen3tts batch` share: a table for nano, and a batch from its start to its end."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

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
    return [{"key": f"row-{i}", "line": text, "who": voice} for i, (text, voice) in enumerate(rows)]


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
