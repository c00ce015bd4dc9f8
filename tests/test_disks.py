"""Disks that fill up, folders that cannot be written to, files in use by two processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import tiny

from qwen3tts_convert import ConvertedPair

resource = pytest.importorskip("resource", reason="limits and permissions are of POSIX")

_ROOM = 2_048  # bytes a file may grow to: the stand-in for a disk that is full
_PROGRAM = [sys.executable, "-m", "qwen3tts_gguf"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def on_a_full_disk(*arguments: object) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (_ROOM, _ROOM))

    command = [*_PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), preexec_fn=limit)


@pytest.fixture
def model(pair: Callable[..., ConvertedPair]) -> Path:
    return pair(ends="never").talker


def assert_error_without_residue(result: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in result.stderr
    assert not [file for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_speech_on_a_full_disk_is_an_error_without_residue(model: Path, tmp_path: Path, suffix: str) -> None:
    result = on_a_full_disk(
        "speak", "Hello.", "-m", model, "-o", tmp_path / f"out{suffix}", "--max-frames", 40, "--keep-partial", "-q"
    )
    assert_error_without_residue(result, tmp_path)


def test_converting_on_a_full_disk_is_an_error_without_residue(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    assert_error_without_residue(on_a_full_disk("convert", checkpoint(), "-o", tmp_path, "-q"), tmp_path)


def test_keeping_a_voice_on_a_full_disk_is_an_error_without_residue(model: Path, tmp_path: Path) -> None:
    clip = tmp_path.parent / f"{tmp_path.name}-clip.wav"
    soundfile.write(clip, tiny.reference_clip(120_000), 24_000)
    result = on_a_full_disk(
        *(
            "voice",
            "create",
            "anna",
            clip,
            "--ref-text",
            "The words.",
            "-m",
            model,
            "--voices",
            tmp_path,
            "-q",
        )
    )
    assert_error_without_residue(result, tmp_path)


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_an_error(model: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    command = [*_PROGRAM, "speak", "Hello.", "-m", str(model), "-o", str(tmp_path / "out.wav"), "-q"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment())
    tmp_path.chmod(0o700)
    assert_error_without_residue(result, tmp_path)


def test_two_processes_speak_from_the_same_read_only_files(pair: Callable[..., ConvertedPair], tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for file in (pair(ends="soon").talker, pair(ends="soon").mmproj):
        shutil.copy(file, folder)
        (folder / file.name).chmod(0o400)
    folder.chmod(0o500)
    outputs = [tmp_path / f"{i}.wav" for i in range(2)]
    running = [
        subprocess.Popen(
            [*_PROGRAM, "speak", "Hello.", "-m", str(folder), "-o", str(out), "--seed", "1", "-q"], env=environment()
        )
        for out in outputs
    ]
    codes = [process.wait() for process in running]
    folder.chmod(0o700)
    assert codes == [0, 0]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
