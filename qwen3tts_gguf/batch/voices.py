"""The voices that a table names: found once, and of a clip encoded once for the whole job."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from ..errors import VoiceError
from ..tts import TTS
from ..voice.compatibility import CUSTOM_VOICE
from ..voice.store import NO_VOICE, VoiceStore
from ..voice.voice import Voice
from .storage import Folder, is_url

__all__ = ["VoiceBook"]

_MOST_IN_MEMORY = 256  # a voice in context is 50 kB, and keeps rows of a prompt
_TRANSCRIPT_SUFFIX = ".txt"


class VoiceBook:
    """What a name or a clip in a table stands for. Usable from any thread.

    A name is none, a preset (of a CustomVoice model), a saved voice or a shipped one. Anything with a suffix or a slash
    is a clip, next to the table unless its path is absolute; a .txt of its name beside it is its transcript. An encoded
    clip is kept in OUT/voices, where later runs and other processes find it.
    """

    def __init__(self, tts: TTS, folder: Folder, table: str, saved: Path | None) -> None:
        self._tts, self._folder = tts, folder
        self._beside = Path() if is_url(table) else Path(table).parent
        self._store = None if saved is None else VoiceStore(saved)
        self._known: OrderedDict[str, Voice] = OrderedDict()
        self._turn = threading.Lock()

    def find(self, name: str | None) -> Voice | None:
        """None for no name: the model's default. Raises VoiceError, AudioError, OptionError, TextError."""
        if name is None:
            return None
        with self._turn:
            if name not in self._known:
                self._known[name] = self._found(name)
                if len(self._known) > _MOST_IN_MEMORY:
                    self._known.popitem(last=False)
            self._known.move_to_end(name)
            return self._known[name]

    def _found(self, name: str) -> Voice:
        if self._tts.kind == CUSTOM_VOICE:
            return Voice.preset(name)
        if name.lower() == NO_VOICE:
            return Voice()
        if self._store is not None and name in self._store.names():
            return self._store.load(name)
        if name in self._tts.shipped_voices:
            return self._tts.resolve(Voice.shipped(name))
        path = Path(name)
        if path.suffix or path.parent != Path():
            return self._clip(self._beside / path)
        raise VoiceError(f"no voice is named {name!r}")

    def _clip(self, clip: Path) -> Voice:
        if not clip.is_file():
            raise VoiceError(f"{clip}: there is no such clip")
        transcript = clip.with_suffix(_TRANSCRIPT_SUFFIX)
        try:
            words = transcript.read_text("utf-8-sig").strip() if transcript.is_file() else None
        except (OSError, UnicodeDecodeError):
            raise VoiceError(f"{transcript}: the transcript of a clip cannot be read as UTF-8") from None
        key = hashlib.sha256(clip.read_bytes() + b"\0" + (words or "").encode()).hexdigest()[:32]
        encoded = f"voices/{key}.voice.safetensors"
        if not self._folder.exists(encoded):
            voice = Voice.from_audio(clip, self._tts, transcript=words or None)
            with self._folder.whole(encoded) as path:
                voice.save(path)
        with self._folder.local(encoded) as path:
            return Voice.load(path)
