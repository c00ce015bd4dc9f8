"""A model in a few sentences, for people: `qwen3tts inspect`."""

from __future__ import annotations

from pathlib import Path

from ..errors import ModelFileError
from ..model import nano
from ..model.files import MmprojFile, ModelFiles, TalkerFile
from ..model.footprint import needed_bytes
from ..model.gguf_file import GgufFile
from ..model.schema import TALKER_ARCHITECTURE, Key
from ..model.vocabulary import Vocabulary
from ..voice.compatibility import BASE, CUSTOM_VOICE, VOICE_DESIGN, guessed_kind
from ..voice.shipped import shipped_voices
from .inspection import weight_types

__all__ = ["summary"]

_KINDS = {
    BASE: "Base: it clones voices",
    CUSTOM_VOICE: "CustomVoice: it has preset speakers",
    VOICE_DESIGN: "VoiceDesign: it makes a voice from a description",
}


def summary(path: Path) -> dict[str, str]:
    """What a model is, in words: {"name": ..., "kind": ..., "voices": ..., ...}; of a single file, what it shows.

    Raises ModelFileError.
    """
    path = nano.resolved(path)
    if path.is_file() and GgufFile(path).text("general.architecture", "") != TALKER_ARCHITECTURE:
        MmprojFile(path)
        half = "the mmproj file of a model: code predictor, codec and encoders"
        return {"name": path.name, "kind": half, "on disk": _size(path.stat().st_size)}
    try:
        files = ModelFiles(path)
    except ModelFileError:
        if not path.is_file():
            raise
        talker = TalkerFile(path)
        half = "the talker of a model; its mmproj file is not there or does not fit"
        return {"name": talker.name, "kind": half, "on disk": _size(path.stat().st_size)}
    return _pair(files)


def _pair(files: ModelFiles) -> dict[str, str]:
    talker = files.talker
    vocabulary = Vocabulary(talker.file, talker.tokens)
    kind = talker.model_type or guessed_kind(files, vocabulary)
    both = (talker.file, files.mmproj.file)
    languages = [name.capitalize() for name in vocabulary.spoken_languages()[1:]]
    is_nano = talker.name.lower() == nano.NAME
    text = nano.DOMAIN if is_nano else f"any text in {', '.join(languages)}"
    g = talker.generation
    rows = {
        "name": talker.name,
        "kind": _KINDS[kind],
        "voices": _voices(files, vocabulary, kind),
        "speaks": text,
        "types": ", ".join(f"{part} {'+'.join(names)}" for part, names in weight_types(files).items()),
        "on disk": _size(sum(file.path.stat().st_size for file in both)),
        "in memory": f"about {_size(needed_bytes(files))} while it speaks",
        "sampling": f"temperature {g.temperature:g}, top-k {g.top_k}, top-p {g.top_p:g}",
        "made from": _origin(talker.file),
        "files": "\n".join(str(file.path) for file in both),
    }
    return {what: words for what, words in rows.items() if words}


def _voices(files: ModelFiles, vocabulary: Vocabulary, kind: str) -> str:
    if kind == CUSTOM_VOICE:
        return f"`Voice.preset` {', '.join(vocabulary.speakers)}"
    if kind == VOICE_DESIGN:
        return '`Voice.design` "a description of the voice"'
    shipped = ", ".join(shipped_voices(files.talker.name))
    clip = "a clip" if files.mmproj.encoder else "a clip, by its speaker vector only: the files have no codec encoder"
    named = f", a saved voice, or a shipped one: {shipped}" if shipped else ""
    return f"`Voice.from_audio` with {clip}{named}"


def _origin(file: GgufFile) -> str:
    source, revision, converter = (file.text(key, "") for key in (Key.SOURCE, Key.REVISION, Key.CONVERTER))
    parts = [
        source,
        f"revision {revision}" if revision else "",
        f"by qwen3tts convert {converter}" if converter else "",
    ]
    return ", ".join(filter(None, parts))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
