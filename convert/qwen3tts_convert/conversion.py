"""From a checkpoint to a pair of GGUF files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from qwen3tts_gguf.errors import CheckpointError, ModelFileError, Note, OptionError

from .checkpoint import Checkpoint
from .keys import mmproj_keys, read_card, talker_keys
from .quantize import choose_types, file_type, require_types
from .sources import Source
from .writer import Draft, Tensor, write_files

__all__ = ["ConvertedPair", "Progress", "convert"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done to which file, and bytes done and to do over the whole conversion."""

_HASH_BLOCK_BYTES = 1 << 23


@dataclass(frozen=True)
class ConvertedPair:
    """The two files of a model."""

    talker: Path
    mmproj: Path
    notes: tuple[Note, ...] = ()
    """What of the checkpoint was left out or chosen."""


def convert(
    checkpoint: str | Path,
    out_dir: str | Path,
    *,
    type: str = "q8_0",
    codec_type: str = "f16",
    name: str | None = None,
    revision: str | None = None,
    on_progress: Progress | None = None,
) -> ConvertedPair:
    """Convert a checkpoint, a folder in the released layout or a hub id, to a pair of GGUF files in `out_dir`.

    The files are `<name>-<TYPE>.gguf` and `mmproj-<name>-<TYPE>.gguf`, `name` being the checkpoint's own by default;
    older files of these names are replaced. quantize.py explains `type` and `codec_type`. `revision` is the commit,
    branch or tag to take from the hub. Raises OptionError, CheckpointError or ModelFileError; whatever is raised,
    Ctrl-C included, no unfinished file stays.
    """
    require_types(type, codec_type)
    if name is not None and (not name or Path(name).name != name):
        raise OptionError(f"{name!r} cannot be part of a file name")
    found = Checkpoint.find(checkpoint, revision)
    talker, mmproj = found.talker_sources(), found.mmproj_sources()
    found.require_no_unknown_tensors(talker, mmproj)
    talker_tensors, mmproj_tensors = _tensors(talker, type, codec_type), _tensors(mmproj, type, codec_type)

    out, name = Path(out_dir), name or found.name
    card, card_notes = read_card(found)
    pair = ConvertedPair(
        out / f"{name}-{type.upper()}.gguf", out / f"mmproj-{name}-{type.upper()}.gguf", found.notes + card_notes
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"{out}: the folder cannot be created: {error.strerror or error}") from error

    n_bytes = sum(path.stat().st_size for path in found.files)
    n_bytes += sum(tensor.n_bytes for tensor in talker_tensors + mmproj_tensors)
    n_done = 0

    def advance(doing: str, path: Path, n: int) -> None:
        nonlocal n_done
        n_done += n
        if on_progress is not None:
            on_progress(f"{doing} {path.name}", n_done, n_bytes)

    sha256 = _digests(found, lambda path, n: advance("hashing", path, n))
    drafts = [
        Draft(pair.mmproj, mmproj_keys(found, card, name, file_type(type), _n_values(mmproj), sha256), mmproj_tensors),
        Draft(pair.talker, talker_keys(found, card, name, file_type(type), _n_values(talker), sha256), talker_tensors),
    ]
    write_files(drafts, lambda path, n: advance("writing", path, n))
    return pair


def _tensors(sources: Mapping[str, Source], type: str, codec_type: str) -> list[Tensor]:
    types = choose_types({name: source.shape for name, source in sources.items()}, type, codec_type)
    return [Tensor(name, types[name], source) for name, source in sources.items()]


def _n_values(sources: Mapping[str, Source]) -> int:
    return sum(prod(source.shape) for source in sources.values())


def _digests(checkpoint: Checkpoint, on_bytes: Callable[[Path, int], None]) -> dict[str, str]:
    """sha256 of every file the conversion reads, by its path in the checkpoint."""
    digests = {}
    for path in checkpoint.files:
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(_HASH_BLOCK_BYTES):
                    digest.update(block)
                    on_bytes(path, len(block))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        digests[path.relative_to(checkpoint.folder).as_posix()] = digest.hexdigest()
    return digests
