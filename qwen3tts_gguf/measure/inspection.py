"""What `inspect` prints, as plain data: what a model is, and whether its tensors are those that were converted."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..model import nano
from ..model.files import MmprojFile, ModelFiles, TalkerFile
from ..model.gguf_file import GgufFile
from ..model.integrity import NOT_RECORDED, SOUND, verify_tensors
from ..model.schema import TALKER_ARCHITECTURE, Key
from ..model.vocabulary import Vocabulary

__all__ = ["inspect_model", "verify_model", "weight_types"]

_NUMBER = re.compile(r"\.\d+(?=\.)")


def inspect_model(path: Path) -> dict[str, Any]:
    """A talker, a mmproj file, or a folder with one pair -> {"files": [{"path", "facts", "tensors"}]}.

    Raises ModelFileError.
    """
    return {
        "files": [
            _talker_report(file) if isinstance(file, TalkerFile) else _mmproj_report(file) for file in _files(path)
        ]
    }


def verify_model(path: Path) -> dict[str, Any]:
    """The same, all tensors read -> {"files": [{"path", "groups"}], "problems": [..]}.

    A problem is a sentence about a file: its tensors are not those that were converted, are not numbers, or cannot be
    checked because no digests were recorded. Raises ModelFileError for a file of another kind.
    """
    files, problems = [], []
    for each in _files(path):
        file = each.file
        groups = [{**asdict(group), "verdict": group.verdict} for group in verify_tensors(file)]
        files.append({"path": str(file.path), "groups": groups})
        verdicts = {group["name"]: group["verdict"] for group in groups if group["verdict"] != SOUND}
        if set(verdicts.values()) == {NOT_RECORDED} and len(verdicts) == len(groups):
            problems.append(
                f"{file.path}: all its values are finite, but it records no sha256 to compare them with: it was made "
                "by another converter than "
                "qwen3tts convert, or by an old version"
            )
        else:
            problems += [f"{file.path}: {group}: {verdict}" for group, verdict in verdicts.items()]
    return {"files": files, "problems": problems}


def _files(path: Path) -> list[TalkerFile | MmprojFile]:
    path = nano.resolved(path)
    if path.is_dir():
        pair = ModelFiles(path)
        return [pair.talker, pair.mmproj]
    is_talker = GgufFile(path).text("general.architecture", "") == TALKER_ARCHITECTURE
    return [TalkerFile(path) if is_talker else MmprojFile(path)]


def _talker_report(talker: TalkerFile) -> dict[str, Any]:
    vocabulary = Vocabulary(talker.file, talker.tokens)
    facts = {
        "name": talker.name,
        "file": "talker",
        "kind": talker.model_type or "not recorded",
        "size": talker.model_size,
        **_provenance(talker.file),
        "languages": vocabulary.spoken_languages(),
        "speakers": list(vocabulary.speakers),
        **{f"talker {name}": value for name, value in asdict(talker.config).items()},
        **{f"default {name}": value for name, value in asdict(talker.generation).items()},
    }
    return {"path": str(talker.file.path), "facts": facts, "tensors": _tensor_groups(talker.file)}


def _mmproj_report(mmproj: MmprojFile) -> dict[str, Any]:
    facts: dict[str, Any] = {"file": "mmproj", **_provenance(mmproj.file)}
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


def weight_types(files: ModelFiles) -> dict[str, list[str]]:
    """The types each part of a model stores its matrices in: {"talker": ["Q8_0"], ...}"""
    talker, mmproj = files.talker.file, files.mmproj.file
    return {
        "token table": _matrix_types(talker, "token_embd."),
        "talker": _matrix_types(talker, "blk."),
        "predictor": _matrix_types(mmproj, "a.gen.code."),
        "codec": _matrix_types(mmproj, "a.gen.wav."),
    }


def _matrix_types(file: GgufFile, prefix: str) -> list[str]:
    """Types of all but vectors, the one with most bytes first."""
    n_bytes: dict[str, int] = {}
    for info in file.tensors.values():
        if info.name.startswith(prefix) and len(info.shape) > 1:
            n_bytes[info.type.name] = n_bytes.get(info.type.name, 0) + info.n_bytes
    return sorted(n_bytes, key=lambda name: -n_bytes[name])
