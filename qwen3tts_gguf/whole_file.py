"""Files that appear only when they are whole."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["unfinished_path", "whole_file"]


def unfinished_path(path: Path) -> Path:
    """A new hidden name in the same folder: short, as the name of `path` may be as long as the file system takes."""
    return path.with_name(f".{secrets.token_hex(8)}.part")


@contextmanager
def whole_file(path: Path, *, keep_partial: bool = False) -> Iterator[Path]:
    """The hidden name to write to: it becomes `path` when the block ends well, and is removed when it does not.

    keep_partial: it becomes `path` in any case. Raises OSError.
    """
    unfinished = unfinished_path(path)
    try:
        try:
            yield unfinished
        except BaseException:
            if keep_partial and unfinished.exists():
                unfinished.replace(path)
            raise
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
