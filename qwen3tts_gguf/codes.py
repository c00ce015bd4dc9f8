"""Codec codes: the sixteen whole numbers of each frame, checked where they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CodesError
from .schema import N_CODEBOOKS

__all__ = ["check_codes", "read_codes"]


def check_codes(codes: NDArray[Any], codebook_size: int) -> NDArray[np.int32]:
    """codes [frames, 16] within the codebooks, as int32. Raises CodesError."""
    if codes.ndim != 2 or codes.shape[1] != N_CODEBOOKS or not np.issubdtype(codes.dtype, np.integer):
        raise CodesError(f"codes must be whole numbers [frames, {N_CODEBOOKS}], not {codes.dtype} {list(codes.shape)}")
    if codes.size and not (0 <= codes.min() and codes.max() < codebook_size):
        raise CodesError(f"codes must lie in 0..{codebook_size - 1}, found {codes.min()}..{codes.max()}")
    return codes.astype(np.int32)


def read_codes(path: Path, codebook_size: int) -> NDArray[np.int32]:
    """A .npy file of codes [frames, 16]. Raises CodesError."""
    try:
        codes = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise CodesError(f"{path}: no such file") from None
    except OSError as error:
        raise CodesError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, EOFError):  # not .npy at all, or one with pickled objects, which are never loaded
        raise CodesError(f"{path}: not a .npy file of codes") from None
    if not isinstance(codes, np.ndarray):
        raise CodesError(f"{path}: not a .npy file of codes (an archive of several arrays)")
    try:
        return check_codes(codes, codebook_size)
    except CodesError as error:
        raise CodesError(f"{path}: {error}") from None
