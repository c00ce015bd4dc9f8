"""Whether a file's tensors are what was converted, and numbers: what `inspect --verify` asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ModelFileError
from .ggml.rows import dequantize_rows
from .ggml.types import GgmlType
from .gguf_file import GgufFile, TensorInfo
from .schema import Key
from .tensor_groups import GroupDigests, group_of

__all__ = ["NOT_RECORDED", "SOUND", "GroupReport", "verify_tensors"]

SOUND = "sound"
NOT_RECORDED = "no sha256 recorded"
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class GroupReport:
    """What was found of one group."""

    name: str
    n_tensors: int
    sha256: str
    recorded: str
    """At conversion; empty where nothing was."""
    not_finite: tuple[str, ...]
    """Tensors that hold NaN or infinity."""

    @property
    def verdict(self) -> str:
        """`SOUND`, `NOT_RECORDED`, or what is wrong."""
        if self.not_finite:
            return f"holds NaN or infinity in {', '.join(self.not_finite[:3])}"
        if not self.recorded:
            return NOT_RECORDED
        return SOUND if self.sha256 == self.recorded else "changed since the conversion"


def verify_tensors(file: GgufFile) -> list[GroupReport]:
    """Reads every tensor of the file. Raises ModelFileError when the recorded digests themselves are damaged."""
    recorded = _recorded(file)
    digests = GroupDigests()
    tensors: dict[str, list[str]] = {}
    not_finite: dict[str, list[str]] = {}
    for info in sorted(file.tensors.values(), key=lambda info: info.offset):
        group = group_of(info.name)
        tensors.setdefault(group, []).append(info.name)
        digests.begin(info.name, info.type, info.shape)
        is_finite = True
        for rows in _row_blocks(file, info):
            digests.update(rows.data)
            is_finite = is_finite and _is_finite(rows, info.type)
        if not is_finite:
            not_finite.setdefault(group, []).append(info.name)
        file.release(info.name)
    found = digests.hexdigests()
    if lost := recorded.keys() - found.keys():
        raise ModelFileError(f"{file.path}: the tensors of {', '.join(sorted(lost))} are missing")
    return [
        GroupReport(group, len(names), found[group], recorded.get(group, ""), tuple(not_finite.get(group, ())))
        for group, names in tensors.items()
    ]


def _is_finite(rows: NDArray[np.uint8], type: GgmlType) -> bool:
    return type == GgmlType.I32 or bool(np.isfinite(dequantize_rows(rows, type)).all())


def _recorded(file: GgufFile) -> dict[str, str]:
    names, digests = file.strings(Key.GROUP_NAMES), file.strings(Key.GROUP_SHA256)
    if len(names) != len(digests) or len({*names}) != len(names):
        raise ModelFileError(f"{file.path}: the keys {Key.GROUP_NAMES} and {Key.GROUP_SHA256} do not fit together")
    return dict(zip(names, digests, strict=True))


def _row_blocks(file: GgufFile, info: TensorInfo) -> Iterator[NDArray[np.uint8]]:
    """A tensor's rows, uint8 [n, row_bytes], a few megabytes at a time."""
    rows = file.blocks(info.name).reshape(-1, info.type.row_bytes(info.shape[-1]))
    step = max(1, _BLOCK_BYTES // rows.shape[1])
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
