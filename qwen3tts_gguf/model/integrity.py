"""Whether a file's tensors are numbers, which is asked of all that is loaded, and those that were converted, which
`inspect --verify` asks."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ModelFileError
from ..ggml.finite import is_finite
from .gguf_file import GgufFile
from .schema import Key
from .tensor_groups import GroupDigests, group_of

__all__ = ["NOT_RECORDED", "SOUND", "GroupReport", "require_finite", "verify_tensors"]

SOUND = "sound"
NOT_RECORDED = "no sha256 recorded"


@dataclass(frozen=True)
class GroupReport:
    """What was found of one group."""

    name: str
    n_tensors: int
    sha256: str
    recorded: str
    """At conversion; empty where nothing was."""
    not_finite: tuple[str, ...]
    """Tensors that contain NaN or infinity."""

    @property
    def verdict(self) -> str:
        """`SOUND`, `NOT_RECORDED`, or what is wrong."""
        if self.not_finite:
            return f"contains NaN or infinity in {', '.join(self.not_finite[:3])}"
        if not self.recorded:
            return NOT_RECORDED
        return SOUND if self.sha256 == self.recorded else "changed since the conversion"


def require_finite(file: GgufFile, *names: str) -> None:
    """Raises ModelFileError for a tensor that contains NaN or infinity.

    While speaking it would not be found: where activations are quantized, as they are for quantized weights, NaN
    becomes some number, and the speech is noise.
    """
    for name in names:
        if not is_finite(file.blocks(name), file.info(name).type):
            raise ModelFileError(f"{file.path}: the file is damaged: {name} contains NaN or infinity")


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
        blocks = file.blocks(info.name)
        digests.update(blocks.data)
        if not is_finite(blocks, info.type):
            not_finite.setdefault(group, []).append(info.name)
        file.release(info.name)
    found = digests.hexdigests()
    if lost := recorded.keys() - found.keys():
        raise ModelFileError(f"{file.path}: the tensors of {', '.join(sorted(lost))} are missing")
    return [
        GroupReport(group, len(names), found[group], recorded.get(group, ""), tuple(not_finite.get(group, ())))
        for group, names in tensors.items()
    ]


def _recorded(file: GgufFile) -> dict[str, str]:
    names, digests = file.strings(Key.GROUP_NAMES), file.strings(Key.GROUP_SHA256)
    if len(names) != len(digests) or len({*names}) != len(names):
        raise ModelFileError(f"{file.path}: the keys {Key.GROUP_NAMES} and {Key.GROUP_SHA256} contradict each other")
    return dict(zip(names, digests, strict=True))
