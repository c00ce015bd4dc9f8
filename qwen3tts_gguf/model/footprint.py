"""Whether a model fits into memory, estimated before it is loaded.

Both files are mapped, so a model too large does not fail: it is read from the disk again for every frame, or the system
ends the process. What is counted is what speaking touches over and over: the weights but the token table and the
encoders, the talker's keys and values, and what any process of this kind takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import psutil

from ..cgroups import control_groups
from ..errors import BackendError
from ..ggml.types import GgmlType
from .files import ModelFiles
from .gguf_file import GgufFile

__all__ = ["NETS", "available_bytes", "device_bytes", "needed_bytes", "require_room", "require_room_for_text"]

_PROCESS_BYTES = 180 << 20
"""Python, the libraries, vocabulary and merges, graphs and their buffers: measured with the 0.6B."""
_POSITIONS = 512
"""Of the talker's keys and values: a sentence or two with a reference."""
_NOT_SPOKEN_WITH = ("token_embd", "a.codec_enc", "a.blk", "a.conv", "a.asp", "mm.a")
NETS = ("talker", "predictor", "codec", "encoders")
"""What can be on a device by itself; the encoders of reference clips go together."""
_OF_NETS = {"predictor": ("a.gen.code",), "codec": ("a.gen.wav",)}
_DEVICE_BYTES = 200 << 20
"""On a device: graphs, states of streams, and llama.cpp's own buffers."""
_DOUBT = 1.25
"""Refuse only past this: the estimate errs by a tenth, and what a system calls available can grow when it is needed."""


def require_room(files: ModelFiles) -> None:
    """Raises BackendError when the model plainly does not fit into what memory is free."""
    needed, available = needed_bytes(files), available_bytes()
    if needed > _DOUBT * available:
        raise BackendError(
            f"{files.talker.file.path}: this model needs about {needed / 1e9:.1f} GB of memory, and "
            f"{max(0, available) / 1e9:.1f} GB are free",
            hint="use a model of a smaller `type` or size, or load this one anyway without `check_memory`",
        )


def require_room_for_text(files: ModelFiles, n_positions: int) -> None:
    """Raises BackendError when the keys and values of a prompt plainly do not fit, with the model already loaded."""
    needed, available = max(0, n_positions - _POSITIONS) * _position_bytes(files), available_bytes()
    if needed > _DOUBT * available:
        raise BackendError(
            f"{files.talker.file.path}: a text of {n_positions} positions needs about {needed / 1e9:.1f} GB of memory, "
            f"and {max(0, available) / 1e9:.1f} GB are free",
            hint="split the text into shorter ones",
        )


def needed_bytes(files: ModelFiles) -> int:
    """About what speaking takes: 4 % below to 11 % above what was measured for the released sizes."""
    weights = sum(_spoken_with(file) for file in (files.talker.file, files.mmproj.file))
    return weights + _POSITIONS * _position_bytes(files) + _PROCESS_BYTES


def device_bytes(files: ModelFiles, nets: Collection[str]) -> int:
    """About what these nets take in the memory of a device other than the CPU; 0 for none."""
    if not nets:
        return 0
    n_bytes = _DEVICE_BYTES
    if "talker" in nets:
        n_bytes += _spoken_with(files.talker.file) + _POSITIONS * _position_bytes(files)
    for name, info in files.mmproj.file.tensors.items():
        net = next((net for net, prefixes in _OF_NETS.items() if name.startswith(prefixes)), "encoders")
        n_bytes += info.n_bytes if net in nets else 0
    return n_bytes


def _position_bytes(files: ModelFiles) -> int:
    """The talker's keys and values of one position."""
    c = files.talker.config
    exact = files.talker.file.info("blk.0.attn_k.weight").type == GgmlType.F32
    return 2 * c.n_layers * c.n_kv_heads * c.head_dim * (4 if exact else 2)


def _spoken_with(file: GgufFile) -> int:
    return sum(info.n_bytes for name, info in file.tensors.items() if not name.startswith(_NOT_SPOKEN_WITH))


def available_bytes() -> int:
    """What the system could give without swapping, or less if a control group limits it."""
    return min([int(psutil.virtual_memory().available), *left_in(control_groups("memory"))])


def left_in(groups: Iterable[Path]) -> list[int]:
    """What each of some control groups has left, where it has a limit; files cached for a group can go."""
    return [left for group in groups for left in _left_in(group)]


def _left_in(group: Path) -> list[int]:
    for limit, used, cached in (
        ("memory.max", "memory.current", ("active_file", "inactive_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")),
    ):
        try:
            most = int((group / limit).read_text())
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            return [most - int((group / used).read_text()) + sum(int(statistics[name]) for name in cached)]
        except (OSError, ValueError, KeyError):  # another version, or "max": no limit
            continue
    return []
