"""The voices that a table names: each found once, and a clip encoded once, for the whole job and all its machines."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import Error, VoiceError
from ..tts import TTS
from ..voice.compatibility import CUSTOM_VOICE
from ..voice.store import NO_VOICE, SUFFIX, VoiceStore
from ..voice.voice import Voice
from .job import OF_A_ROW, Job
from .plan import Plan, rows_of
from .storage import WORK, Folder, is_url, locked

__all__ = ["VoiceBook", "voice_names"]

_MOST_IN_MEMORY = 256  # a voice in context is 50 kB, and keeps rows of a prompt
_TRANSCRIPT_SUFFIX = ".txt"


class VoiceBook:
    """What a name or a clip in a table stands for. Usable from any thread.

    A name is none, a preset (of a CustomVoice model), a saved voice or a shipped one. Anything with a suffix or a slash
    is a clip, next to the table unless its path is absolute; a .txt of its name beside it is its transcript. Saved
    voices and clips are put into OUT/voices when they are first found, and taken from there ever after.
    """

    def __init__(
        self, tts: TTS, folder: Folder, table: str, saved: Path | None, failed: Mapping[str, Error] | None = None
    ) -> None:
        """saved: the folder of saved voices. failed: names that cannot be used, by `prepare` on another machine."""
        self._tts, self._folder = tts, folder
        self._beside = Path() if is_url(table) else Path(table).parent
        self._store = None if saved is None else VoiceStore(saved)
        self._failed = failed or {}
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

    def prepare(self, names: Iterable[str]) -> dict[str, Error]:
        """Put all into OUT, so that a machine without the clips and saved voices has them; why not, of those that
        cannot be used."""
        failed: dict[str, Error] = {}
        for name in names:
            try:
                self.find(name)
            except OF_A_ROW as error:
                failed[name] = error.with_traceback(None)
        return failed

    def _found(self, name: str) -> Voice:
        if self._tts.kind == CUSTOM_VOICE:
            return Voice.preset(name)
        if name.lower() == NO_VOICE:
            return Voice()
        if name in self._failed:
            raise self._failed[name].with_traceback(None)  # or each raise would add to it
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        kept = f"voices/{key}{SUFFIX}"
        if self._folder.exists(kept):
            return self._load(kept)
        path = Path(name)
        is_saved = self._store is not None and name in self._store.names()
        if not is_saved and name in self._tts.shipped_voices:
            return self._tts.resolve(Voice.shipped(name))
        if not is_saved and not path.suffix and path.parent == Path():
            raise VoiceError(f"no voice is named {name!r}")
        with locked(self._folder, f"{WORK}/voices/{key}"):
            if not self._folder.exists(kept):  # another process has just put it there
                voice = self._store.load(name) if self._store and is_saved else self._encoded(self._beside / path)
                with self._folder.whole(kept) as whole:
                    voice.save(whole)
            return self._load(kept)

    def _load(self, kept: str) -> Voice:
        with self._folder.local(kept) as path:
            return Voice.load(path)

    def _encoded(self, clip: Path) -> Voice:
        if not clip.is_file():
            raise VoiceError(f"{clip}: there is no such clip")
        transcript = clip.with_suffix(_TRANSCRIPT_SUFFIX)
        try:
            words = transcript.read_text("utf-8-sig").strip() if transcript.is_file() else None
        except (OSError, UnicodeDecodeError):
            raise VoiceError(f"{transcript}: the transcript of a clip cannot be read as UTF-8") from None
        return Voice.from_audio(clip, self._tts, transcript=words or None)


def voice_names(job: Job, plan: Plan, shards: Iterable[int]) -> Iterator[str]:
    """Each name or clip that rows of these shards have, once. Raises TableError."""
    seen: set[str] = set()
    for shard in shards if job.voice_column is not None else ():
        for row in rows_of(job, plan, shard):
            name = row.voice or job.voice
            if name is not None and name not in seen:
                seen.add(name)
                yield name
    if job.voice_column is None and job.voice is not None:
        yield job.voice
