"""`speak - --live`: stdin is spoken as it arrives."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated

from ..errors import OptionError, TextError
from .console import stderr
from .panels import TEXT, flag, value

if TYPE_CHECKING:
    from ..speech.options import SpeechOptions
    from ..tts import TTS, LiveText, Utterance
    from ..voice.voice import Voice

__all__ = ["LiveBy", "LiveOptions", "arriving_on_stdin", "live_attempt"]

_MOST_BYTES = 65_536


class LiveBy(str, Enum):
    """What is spoken at once of a text that is still arriving."""

    AUTO = "auto"
    TOKEN = "token"
    SENTENCE = "sentence"


@dataclass(frozen=True)
class LiveOptions:
    """Speech while the text is still being written."""

    live: Annotated[
        bool, flag(TEXT, "Speak stdin as it arrives, while the other program is still writing.", "--live")
    ] = False
    live_in_context: Annotated[
        bool,
        flag(
            TEXT,
            "With --live: clone with codes and transcript; the first sound then waits for 45 to 95 tokens.",
            "--live-in-context",
        ),
    ] = False
    live_by: Annotated[
        LiveBy,
        value(
            "UNIT",
            TEXT,
            "With --live: speak by token, by sentence, or auto: sentences if the first eight tokens came "
            "too slowly for speech without gaps.",
            "--live-by",
        ),
    ] = LiveBy.AUTO

    def require_stdin(self, text: str | None, clean: object, *, needs_codes: bool) -> None:
        """Raises OptionError where these options do not go together with the others."""
        if (self.live_in_context or self.live_by != LiveBy.AUTO) and not self.live:
            raise OptionError("--live-in-context and --live-by need --live")
        if needs_codes and self.live_by == LiveBy.SENTENCE:
            raise OptionError("--codes and --save-voice need the text in one speech", hint="use --live-by token")
        if self.live and text != "-":
            raise OptionError("--live speaks what arrives on stdin", hint="give - as the text")
        if self.live and clean is not None:
            raise OptionError("--clean needs the whole text before the first word: leave it out, or --live")

    def by_sentence_and_text(self, tts: TTS, *, needs_codes: bool, quiet: bool) -> tuple[bool, Iterable[str]]:
        """Whether whole sentences are to be spoken, and the text; waits for its first words where they decide."""
        from ..speech.pace import keeps_up

        pieces = arriving_on_stdin()
        if self.live_by != LiveBy.AUTO or needs_codes:
            return self.live_by == LiveBy.SENTENCE, pieces
        is_fast, pieces = keeps_up(pieces, tts.n_tokens)
        if not is_fast and not quiet:
            stderr.print("the text comes slower than speech takes it: speaking whole sentences", soft_wrap=True)
        return not is_fast, pieces


def live_attempt(
    tts: TTS, text: LiveText, pieces: Iterable[str], voice: Voice | None, options: SpeechOptions
) -> Iterator[Utterance]:
    """The one speech that stdin can be; it cannot be read again."""
    from ..speech.feeding import fed_by_thread

    with tts.utter(text, voice, options) as utterance, fed_by_thread(text, pieces):
        yield utterance


def arriving_on_stdin() -> Iterator[str]:
    """What comes on stdin, each part as soon as it is there. Raises TextError where it is not UTF-8."""
    read, decoder = _reader(), codecs.getincrementaldecoder("utf-8-sig")()
    try:
        while content := read(_MOST_BYTES):
            if part := decoder.decode(content):
                yield part
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise TextError("the text on stdin: not UTF-8 text", hint="with --live it must be UTF-8") from None


def _reader() -> Callable[[int], bytes]:
    """Reads what is there without waiting for more. Not through the buffered stream: a thread that waits inside it
    would crash the interpreter at its end, after Ctrl-C."""
    try:
        descriptor = sys.stdin.fileno()
    except OSError:  # not a real file
        return sys.stdin.buffer.read
    return lambda n: os.read(descriptor, n)
