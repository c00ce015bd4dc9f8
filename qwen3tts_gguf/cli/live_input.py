"""`speak - --live`: stdin is spoken as it arrives."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OptionError, TextError

if TYPE_CHECKING:
    from ..speech.options import SpeechOptions
    from ..tts import TTS, LiveText, Utterance
    from ..voice.voice import Voice

__all__ = ["LiveOptions", "arriving_on_stdin"]

_MOST_BYTES = 65_536


@dataclass(frozen=True)
class LiveOptions:
    """Speech while the text is still being written."""

    live: Annotated[
        bool, typer.Option("--live", help="Speak stdin as it arrives, while the other program still writes.")
    ] = False
    live_in_context: Annotated[
        bool,
        typer.Option("--live-in-context", help="With --live: clone in context; the first sound needs 45 to 95 tokens."),
    ] = False

    def require_stdin(self, text: str, clean: object) -> None:
        """Raises OptionError where these options do not go together with the others."""
        if self.live_in_context and not self.live:
            raise OptionError("--live-in-context belongs to --live: give both")
        if self.live and text != "-":
            raise OptionError("--live speaks what arrives on stdin", hint="give - as the text")
        if self.live and clean is not None:
            raise OptionError("--clean needs the whole text before the first word: leave it out, or --live")

    def attempt(self, tts: TTS, text: LiveText, voice: Voice | None, options: SpeechOptions) -> Iterator[Utterance]:
        """The one speech that stdin can be; it cannot be read again."""
        from ..speech.feeding import fed_by_thread

        with tts.utter(text, voice, options) as utterance, fed_by_thread(text, arriving_on_stdin()):
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
