"""The tensors of a file in groups, each with one sha256: recorded at conversion, computed again by `inspect --verify`.

A group's digest is over its tensors in file order: for each a line `name TYPE [shape]\\n`, then its bytes as they lie
in the file, without padding. So a value, a name, a type or a place that has changed is a digest that has changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from ..ggml.types import GgmlType

__all__ = ["GroupDigests", "group_of"]

# The first row whose pattern matches the beginning of a tensor's name.
_GROUPS = (
    ("token table", r"token_embd"),
    ("talker head", r"output"),
    ("talker blocks", r"blk"),
    ("code predictor", r"a\.gen\.code"),
    ("codec codebooks", r"a\.(gen\.wav|codec_enc)\.quant"),
    ("codec decoder", r"a\.gen\.wav"),
    ("codec encoder", r"a\.codec_enc"),
    ("speaker encoder", r"(a\.(blk|conv|asp)|mm\.a)"),
    ("others", r""),
)


def group_of(tensor: str) -> str:
    """The group a tensor of that name is in."""
    return next(group for group, pattern in _GROUPS if re.match(pattern, tensor))


class GroupDigests:
    """Digests that grow as tensors go by: `begin` each, in file order, then `update` with its bytes."""

    def __init__(self) -> None:
        self._digests: dict[str, hashlib._Hash] = {}
        self._current = hashlib.sha256()

    def begin(self, name: str, type: GgmlType, shape: Sequence[int]) -> None:
        self._current = self._digests.setdefault(group_of(name), hashlib.sha256())
        self._current.update(f"{name} {type.name} {list(shape)}\n".encode())

    def update(self, data: bytes | memoryview) -> None:
        self._current.update(data)

    def hexdigests(self) -> dict[str, str]:
        """Group -> sha256, in the order the groups began."""
        return {group: digest.hexdigest() for group, digest in self._digests.items()}
