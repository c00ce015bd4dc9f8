"""Which model it was: a fingerprint of both files, so that one data set is never made by two models."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..model import nano
from ..model.files import ModelFiles

__all__ = ["fingerprint"]

_BLOCK = 1 << 20


def fingerprint(model: Path, mmproj: Path | None = None) -> str:
    """The first 16 letters of a SHA-256 over both files of the pair, 1 s per GB. Raises ModelFileError."""
    files = ModelFiles(nano.resolved(model), mmproj)
    digest = hashlib.sha256()
    for path in (files.talker.file.path, files.mmproj.file.path):
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]
