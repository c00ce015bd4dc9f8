"""What `inspect` tells of a model, as plain data."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .gguf_file import GgufFile
from .model_files import MmprojFile, ModelFiles, TalkerFile
from .schema import TALKER_ARCHITECTURE, Key
from .vocabulary import Vocabulary

__all__ = ["inspect_model"]

_NUMBER = re.compile(r"\.\d+(?=\.)")


def inspect_model(path: Path) -> dict[str, Any]:
    """A talker, a mmproj file, or a folder with one pair -> {"files": [{"path", "facts", "tensors"}]}.

    Raises ModelFileError.
    """
    if path.is_dir():
        pair = ModelFiles(path)
        return {"files": [_talker_report(pair.talker), _mmproj_report(pair.mmproj)]}
    if GgufFile(path).text("general.architecture", "") == TALKER_ARCHITECTURE:
        return {"files": [_talker_report(TalkerFile(path))]}
    return {"files": [_mmproj_report(MmprojFile(path))]}


def _talker_report(talker: TalkerFile) -> dict[str, Any]:
    vocabulary = Vocabulary(talker.file, talker.tokens)
    facts = {
        "name": talker.name,
        "half": "talker",
        "kind": talker.model_type or "not told",
        "size": talker.model_size,
        **_provenance(talker.file),
        "languages": vocabulary.spoken_languages(),
        "speakers": list(vocabulary.speakers),
        **{f"talker {name}": value for name, value in asdict(talker.config).items()},
        **{f"default {name}": value for name, value in asdict(talker.generation).items()},
    }
    return {"path": str(talker.file.path), "facts": facts, "tensors": _tensor_groups(talker.file)}


def _mmproj_report(mmproj: MmprojFile) -> dict[str, Any]:
    facts: dict[str, Any] = {"half": "mmproj", **_provenance(mmproj.file)}
    parts: dict[str, Any] = {
        "code predictor": mmproj.predictor,
        "codec decoder": mmproj.decoder,
        "codec encoder": mmproj.encoder,
        "speaker encoder": mmproj.speaker_encoder,
    }
    for part, config in parts.items():
        if config is None:
            facts[part] = "none"
        else:
            facts |= {f"{part} {name}": value for name, value in asdict(config).items()}
    return {"path": str(mmproj.file.path), "facts": facts, "tensors": _tensor_groups(mmproj.file)}


def _provenance(file: GgufFile) -> dict[str, Any]:
    keys = {"source": Key.SOURCE, "revision": Key.REVISION, "converter": Key.CONVERTER}
    return {what: file.text(key) for what, key in keys.items() if key in file}


def _tensor_groups(file: GgufFile) -> list[dict[str, Any]]:
    """Tensors that differ only in their numbers are one group, named with * for those."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for info in file.tensors.values():
        name = _NUMBER.sub(".*", info.name)
        group = groups.setdefault(
            (name, info.type.name), {"name": name, "type": info.type.name, "count": 0, "bytes": 0}
        )
        group["count"] += 1
        group["bytes"] += info.n_bytes
    return list(groups.values())
