"""What was made of the shipped voices' clips, kept in the user's cache folder: one voice file each.

A cache that is missing, damaged, full or read-only is never an error: the clip is then encoded again.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import Error, VoiceError
from ..model.files import MmprojFile
from ..model.schema import Key
from .voice import Voice

__all__ = ["VoiceCache", "model_key"]

_FORMAT = "1"
"""Counted up when an encoder's arithmetic changes, so that what older versions made is not found."""
_SUFFIX = ".safetensors"


def model_key(model: MmprojFile) -> str:
    """Equal for two files whose encoders make the same of a clip: by the digests that the converter recorded, and by
    names, types and shapes, which is all that llama.cpp's files have."""
    digest = hashlib.sha256(_FORMAT.encode())
    for sha256 in model.file.strings(Key.GROUP_SHA256):
        digest.update(sha256.encode())
    for name, info in sorted(model.file.tensors.items()):
        digest.update(f"{name} {info.type.name} {list(info.shape)}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class VoiceCache:
    """folder: where the files are; it is made when the first one is saved. None: nothing is kept."""

    folder: Path | None

    @classmethod
    def of_user(cls) -> VoiceCache:
        """In the user's cache folder, if the system names one."""
        import platformdirs

        folder = Path(platformdirs.user_cache_dir("qwen3tts", appauthor=False))
        return cls(folder / "voices" if folder.is_absolute() else None)  # "~" is left where there is no home

    def load(self, name: str, key: str) -> Voice | None:
        """The voice that was saved under name and key; None if there is none that can be read."""
        if self.folder is None:
            return None
        try:
            return Voice.load(self._path(self.folder, name, key))
        except (Error, OSError):
            return None

    def save(self, name: str, key: str, voice: Voice) -> None:
        """Keep a voice, if that is possible."""
        if self.folder is None:
            return
        try:
            voice.save(self._path(self.folder, name, key))
        except (Error, OSError):
            return

    def files(self) -> list[Path]:
        """What is kept."""
        try:
            return [] if self.folder is None else sorted(self.folder.glob(f"*{_SUFFIX}"))
        except OSError:
            return []

    def n_bytes(self) -> int:
        """The size of what is kept."""
        try:
            return sum(file.stat().st_size for file in self.files())
        except OSError:
            return 0

    def clear(self) -> int:
        """Delete what is kept -> how many files. Raises VoiceError."""
        files = self.files()
        for file in files:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise VoiceError(f"{file}: cannot be deleted ({error.strerror})") from None
        return len(files)

    @staticmethod
    def _path(folder: Path, name: str, key: str) -> Path:
        return folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}{_SUFFIX}"
