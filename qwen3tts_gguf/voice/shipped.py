"""The voices that come with the package: clips with transcripts, encoded when a model first speaks with one.

    voices.json, NAME.flac ──> ShippedVoice ──cache, else encoders──> Voice (speaker vector, codes)

nano has ten of its own, the only ones it was trained on; every other model that clones has the ten of models/voices.
The first of a table is the default voice. The model cards in their folders describe how they were made.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..errors import VoiceError
from ..model import nano
from ..model.files import ModelFiles
from .cache import VoiceCache, model_key
from .encoder import VoiceEncoder, codec_fingerprint, speaker_fingerprint
from .voice import Voice

__all__ = ["ShippedVoice", "ShippedVoices", "shipped_voices"]

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "shipped_voices", _PACKAGE.parent / "models" / "voices")  # in an installed package; in a checkout
_TABLE = "voices.json"


@dataclass(frozen=True)
class ShippedVoice:
    """One row of a table, and its clip."""

    name: str
    sex: str
    accent: str
    origin: str
    """What made the clip: none is a recording of a person."""
    transcript: str
    clip: Path
    in_context: bool = True
    """Whether its codes are used, with the transcript; else the speaker vector alone."""


def shipped_voices(model_name: str) -> dict[str, ShippedVoice]:
    """The voices for a model of that name (`TalkerFile.name`), by name, the default first; empty in an installation
    without them."""
    return _table(_nano_folder() if model_name.lower() == nano.NAME else _folder())


@cache
def _table(folder: Path) -> dict[str, ShippedVoice]:
    try:
        rows = json.loads((folder / _TABLE).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return {
        row["name"]: ShippedVoice(
            row["name"],
            row["sex"],
            row["accent"],
            row["origin"],
            row["transcript"],
            folder / f"{row['name']}.flac",
            row.get("in_context", True),
        )
        for row in rows
    }


def _folder() -> Path:
    return next((place for place in _PLACES if (place / _TABLE).is_file()), _PLACES[0])


def _nano_folder() -> Path:
    return nano.folder() / "voices"


class ShippedVoices:
    """One model's shipped voices. Usable from several threads.

    can_clone: whether the model takes the voice of a clip; one that does not has none. cache: the user's by default.
    """

    def __init__(
        self, files: ModelFiles, encoder: VoiceEncoder, *, can_clone: bool, cache: VoiceCache | None = None
    ) -> None:
        self.voice_encoder = encoder
        self._files, self._can_clone = files, can_clone
        self._cache = VoiceCache.of_user() if cache is None else cache
        self._made: dict[tuple[str, bool, str | None], Voice] = {}
        self._turn = threading.Lock()
        encodes = can_clone and files.mmproj.speaker_encoder is not None
        self.table = shipped_voices(files.talker.name) if encodes else {}

    @property
    def default(self) -> Voice | None:
        """The first of the table; None for a model without shipped voices."""
        return next((Voice.shipped(name) for name in self.table), None)

    def resolve(self, voice: Voice) -> Voice:
        """What the model needs of a shipped voice: the same object each time, whose prompt is then known. Any other
        voice is returned as it is. Raises VoiceError for a name that no shipped voice has."""
        if voice.shipped_name is None or not self._can_clone or voice.instruct is not None:
            return voice  # a model that does not clone, or follow instructions, refuses it by its own reasons
        shipped = self.table.get(voice.shipped_name)
        if shipped is None:
            known = ", ".join(self.table) or "none"
            raise VoiceError(f"no shipped voice is named {voice.shipped_name!r}", hint=f"this model has {known}")
        in_context = shipped.in_context and not voice.vector_only and self._files.mmproj.encoder is not None
        with self._turn:
            wanted = shipped.name, in_context, voice.language
            if wanted not in self._made:
                self._made[wanted] = replace(self._encoded(shipped, in_context), language=voice.language)
            return self._made[wanted]

    def _encoded(self, shipped: ShippedVoice, in_context: bool) -> Voice:
        transcript = shipped.transcript if in_context else None
        clip = hashlib.sha256(shipped.clip.read_bytes()).hexdigest()
        key = f"{model_key(self._files.mmproj)} {clip} {transcript}"
        voice = self._cache.load(shipped.name, key)
        if voice is None or not self._fits(voice, transcript):
            voice = Voice.from_audio(shipped.clip, self, transcript=transcript)
            self._cache.save(shipped.name, key, voice)
        return voice

    def _fits(self, voice: Voice, transcript: str | None) -> bool:
        """Whether a voice of the cache is what the encoders would make here: a cache folder is open to the user."""
        model, hidden = self._files.mmproj, self._files.talker.config.hidden
        return (
            voice.transcript == transcript
            and voice.speaker is not None
            and voice.speaker.shape == (hidden,)
            and voice.speaker_encoder == speaker_fingerprint(model)
            and (voice.codes is not None) == (transcript is not None)
            and (voice.codes is None or int(voice.codes.max()) < model.decoder.codebook_size)
            and voice.codec == (codec_fingerprint(model) if transcript is not None else "")
        )
