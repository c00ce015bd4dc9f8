"""Codec codes: the sixteen whole numbers of each frame, checked where they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CodesError
from ..model.schema import N_CODEBOOKS

__all__ = ["check_codes", "read_codes"]


def check_codes(codes: NDArray[Any], codebook_size: int) -> NDArray[np.int32]:
    """codes [frames, 16] within the codebooks, as int32. Raises CodesError."""
    if codes.ndim != 2 or codes.shape[1] != N_CODEBOOKS or not np.issubdtype(codes.dtype, np.integer):
        raise CodesError(
            f"codes must be integers of shape [frames, {N_CODEBOOKS}], not {codes.dtype} {list(codes.shape)}"
        )
    if codes.size and not (0 <= codes.min() and codes.max() < codebook_size):
        raise CodesError(f"codes must lie in 0..{codebook_size - 1}, found {codes.min()}..{codes.max()}")
    return codes.astype(np.int32)


def read_codes(path: Path, codebook_size: int) -> NDArray[np.int32]:
    """A .npy file of codes [frames, 16]. Raises CodesError.

    The file is mapped: one that claims more than it holds takes no memory, and one of pickled objects is not read.
    """
    if not path.exists():
        raise CodesError(f"{path}: no such file")
    if not path.is_file():
        raise CodesError(f"{path}: cannot be read (not a file)")
    try:
        with np.errstate(over="ignore"):
            codes = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise CodesError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception:  # NumPy reads the header with Python's own parser, whose errors are many
        raise CodesError(f"{path}: not a .npy file of codes") from None
    try:
        return check_codes(codes, codebook_size)
    except CodesError as error:
        raise CodesError(f"{path}: {error}") from None
