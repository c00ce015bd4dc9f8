"""Names to voices: what a request calls a voice, found among aliases, saved, shipped and preset ones.

The order: `--alias`, saved voices, the model's own (shipped ones of a Base model, presets of a CustomVoice model), then
OpenAI's thirteen names, which always mean some voice. A name is never a path: saved voices are looked up in the
folder's list of names.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import AudioError, VoiceError
from ..tts import TTS
from ..voice.compatibility import BASE, CUSTOM_VOICE, VOICE_DESIGN
from ..voice.store import NO_VOICE, VoiceStore
from ..voice.voice import Voice
from .problems import Problem

__all__ = ["OPENAI_VOICES", "Named", "Voices"]

DEFAULT = "default"
"""Stands for the model's default voice, as no name does."""

OPENAI_VOICES: Mapping[str, tuple[int, str, str]] = {
    # name: which shipped voice of a Base model (an index, modulo their number), the preset of a CustomVoice model,
    # and the description for a VoiceDesign model
    "alloy": (0, "serena", "A balanced, friendly adult voice of medium pitch, speaking clearly."),
    "ash": (1, "ryan", "A warm, confident man in his thirties with a smooth, low voice."),
    "ballad": (2, "aiden", "A gentle, expressive young man telling a story."),
    "cedar": (3, "eric", "A calm, deep and natural man's voice, unhurried."),
    "coral": (4, "vivian", "A bright, cheerful young woman with a lively voice."),
    "echo": (5, "dylan", "A steady, clear man's voice of medium pitch, like a presenter."),
    "fable": (6, "uncle_fu", "A characterful older man with a British accent, telling a tale."),
    "marin": (7, "ono_anna", "A warm, natural woman's voice, relaxed and close."),
    "nova": (8, "vivian", "An energetic young woman with a clear, bright voice."),
    "onyx": (9, "ryan", "A man with a very deep, authoritative voice, speaking slowly."),
    "sage": (0, "sohee", "A thoughtful, soft woman's voice, calm and kind."),
    "shimmer": (4, "serena", "A soft, light woman's voice, optimistic."),
    "verse": (2, "aiden", "A versatile young man with an expressive, lively voice."),
}
_MOST_LOADED = 64


@dataclass(frozen=True)
class Named:
    """One voice as a client lists it."""

    name: str
    kind: str
    """"saved", "shipped", "preset", "alias"."""
    language: str | None = None
    description: str = ""
    created_at: int = 0


class Voices:
    """The voices of one server. `voice` and `save` compute and are for a thread; all is safe in several threads."""

    def __init__(self, store: VoiceStore, aliases: Mapping[str, str], *, most: int = 1000) -> None:
        self.store, self._most = store, most
        self._aliases = {name.casefold(): target for name, target in aliases.items()}
        self._loaded: dict[tuple[str, int, int], Voice] = {}
        self._lock = threading.Lock()

    # -- speaking ------------------------------------------------------------------------------------------------------

    def voice(self, tts: TTS, name: str | None = None, instructions: str | None = None) -> tuple[Voice | None, bool]:
        """The voice of that name, following the instructions -> it, and whether the instructions are followed.

        None and "default" are the default voice. A model that cannot follow instructions speaks without them, because
        many clients always send some. Raises Problem (400) for an unknown name; VoiceError.
        """
        voice = self._named(tts, name)
        if not instructions:
            return voice, True
        if not tts.follows_instructions:
            return voice, False
        return replace(voice or tts.default_voice or Voice(), instruct=instructions), True

    def _named(self, tts: TTS, name: str | None) -> Voice | None:
        if name is not None and (target := self._aliases.get(name.casefold())) is not None:
            name = target
        if name is None or name.casefold() == DEFAULT:
            return Voice.design(OPENAI_VOICES["alloy"][2]) if tts.kind == VOICE_DESIGN else self._default(tts)
        if name.casefold() == NO_VOICE:
            return Voice()
        if (saved := _same(name, self.store.names())) is not None:
            return self._load(saved)
        if (shipped := _same(name, tts.shipped_voices)) is not None:
            return Voice.shipped(shipped)
        if (preset := _same(name, _presets(tts))) is not None:
            return Voice.preset(preset)
        if name.casefold() in OPENAI_VOICES:
            return self._openai(tts, name.casefold())
        known = ", ".join(voice.name for voice in self.list(tts) if voice.kind != "alias") or "none"
        raise Problem(400, "voice_not_found", f"there is no voice {name!r:.80}; there are {known}", param="voice")

    @staticmethod
    def _default(tts: TTS) -> Voice | None:
        """A CustomVoice model has no default of its own: the preset that "alloy" means."""
        presets = _presets(tts)
        return Voice.preset(_same(OPENAI_VOICES["alloy"][1], presets) or next(iter(presets))) if presets else None

    @staticmethod
    def _openai(tts: TTS, name: str) -> Voice | None:
        index, preset, description = OPENAI_VOICES[name]
        if tts.kind == VOICE_DESIGN:
            return Voice.design(description)
        if presets := list(_presets(tts)):
            return Voice.preset(_same(preset, presets) or presets[index % len(presets)])
        shipped = list(tts.shipped_voices)
        return Voice.shipped(shipped[index % len(shipped)]) if shipped else None

    def _load(self, name: str) -> Voice:
        """The same object each time, so that the engine knows its prompt, until the file changes."""
        status = self.store.path(name).stat()
        key = (name, status.st_mtime_ns, status.st_size)
        with self._lock:
            if key not in self._loaded:
                voice = self.store.load(name)
                while len(self._loaded) >= _MOST_LOADED:
                    self._loaded.pop(next(iter(self._loaded)))
                self._loaded[key] = voice
            return self._loaded[key]

    # -- listing -------------------------------------------------------------------------------------------------------

    def list(self, tts: TTS | None) -> list[Named]:
        """Every name that can be asked for: saved voices, those of the model, then aliases. Without a loaded model,
        saved voices and aliases."""
        voices = [
            Named(name, "saved", created_at=int(self.store.path(name).stat().st_mtime)) for name in self.store.names()
        ]
        if tts is not None:
            for shipped in tts.shipped_voices.values():
                described = f"{shipped.sex}, {shipped.accent} accent"
                voices.append(Named(shipped.name, "shipped", description=described))
            voices += [Named(name, "preset") for name in _presets(tts)]
        taken = {voice.name.casefold() for voice in voices}
        aliases = [*self._aliases, *(name for name in OPENAI_VOICES if name not in self._aliases)]
        return voices + [Named(name, "alias") for name in aliases if name not in taken]

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(
        self,
        tts: TTS,
        name: str,
        clip: bytes,
        *,
        transcript: str | None = None,
        language: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Encode a clip and save its voice under a name. Raises Problem, AudioError, OptionError, VoiceError."""
        self.require_free(name, overwrite=overwrite)
        if language is not None:
            tts.vocabulary.language_id(language)
        voice = voice_of_clip(tts, clip, transcript)
        self.require_free(name, overwrite=overwrite)
        self.store.folder.mkdir(parents=True, exist_ok=True)
        self.store.save(name, replace(voice, language=language), overwrite=overwrite)

    def require_free(self, name: str, *, overwrite: bool) -> None:
        """Before the clip is encoded: that it could be saved. Raises Problem."""
        try:
            exists = self.store.path(name).is_file()
        except VoiceError as error:
            raise Problem(400, "invalid_value", str(error), param="name") from None
        if exists and not overwrite:
            message = f"there is a voice named {name!r}; send overwrite=true to replace it"
            raise Problem(409, "voice_exists", message, param="name", may_retry=False)
        if not exists and len(self.store.names()) >= self._most:
            raise Problem(403, "too_many_voices", f"this server keeps at most {self._most} voices", may_retry=False)

    def delete(self, tts: TTS | None, name: str) -> None:
        """Delete a saved voice. Raises Problem."""
        try:
            if self.store.path(name).is_file():
                self.store.delete(name)
                return
        except VoiceError:
            pass
        own = () if tts is None else (*tts.shipped_voices, *_presets(tts))
        if _same(name, (*own, *self._aliases, *OPENAI_VOICES)) is not None:
            raise Problem(400, "voice_is_preset", f"the voice {name!r:.80} is not a saved one: it cannot be deleted")
        raise Problem(404, "voice_not_found", f"there is no saved voice {name!r:.80}")


def voice_of_clip(tts: TTS, clip: bytes, transcript: str | None) -> Voice:
    """The voice of a clip's bytes, whatever format they are in. Raises AudioError, OptionError."""
    if tts.kind != BASE:
        message = f"this model ({tts.kind}) cannot clone a voice"
        raise Problem(400, "invalid_value", message, param="ref_audio")
    with tempfile.NamedTemporaryFile(suffix=".clip") as file:
        file.write(clip)
        file.flush()
        try:
            return Voice.from_audio(Path(file.name), tts, transcript=transcript)
        except AudioError as error:
            message = error.message.replace(f"{file.name}: ", "the clip: ")
            hint = "send WAV, FLAC, Ogg or MP3" if file.name in error.hint else error.hint
            raise AudioError(message, hint=hint) from None


def _presets(tts: TTS) -> Mapping[str, Any]:
    return tts.vocabulary.speakers if tts.kind == CUSTOM_VOICE else {}


def _same(name: str, known: Any) -> str | None:
    """The name as it is known, whatever the case it is asked for in; an exact one first."""
    names = list(known)
    return name if name in names else next((own for own in names if own.casefold() == name.casefold()), None)
