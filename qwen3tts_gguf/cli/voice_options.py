"""The options that choose a voice, and the voice they choose: a clip, a saved voice, or a shipped one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import OptionError, TextError, VoiceError
from .console import VoicesOption, print_notes, printable, read_text, stderr, voices_folder
from .panels import VOICE, flag, value

if TYPE_CHECKING:
    from ..tts import TTS
    from ..voice.voice import Voice

__all__ = ["ENVIRONMENT", "ClipOptions", "InstructOption", "SpeakerOption", "VoiceOptions", "known_voices"]

ENVIRONMENT = "QWEN3TTS_VOICE"
SpeakerOption = Annotated[str | None, value("NAME", VOICE, "Preset speaker of a CustomVoice model.", "--speaker")]
InstructOption = Annotated[
    str | None,
    value("TEXT", VOICE, "Speaking style; for a VoiceDesign model, description of the voice.", "--instruct"),
]
"""Takes what --voice takes, for `speak` without --voice."""


def known_voices(incomplete: str) -> list[str]:
    """Names of saved and shipped voices, for the shell's completion; files are completed by the shell itself."""
    from ..voice.shipped import shipped_voices
    from ..voice.store import VoiceStore

    chosen = os.environ.get("QWEN3TTS_VOICES")
    saved = VoiceStore(voices_folder(Path(chosen) if chosen else None)).names()
    return [name for name in [*saved, *shipped_voices("")] if name.startswith(incomplete)]


@dataclass(frozen=True)
class ClipOptions:
    """What is known about a clip, and what of it is used."""

    ref_text: Annotated[
        str | None,
        value("TEXT", VOICE, "Transcript of the clip. With it the voice comes closer to the clip.", "--ref-text"),
    ] = None
    ref_text_file: Annotated[
        Path | None,
        value(
            "FILE",
            VOICE,
            "File with the transcript. Default: the .txt file with the clip's name, if there is one.",
            "--ref-text-file",
        ),
    ] = None
    x_vector_only: Annotated[
        bool,
        flag(VOICE, "Clone with the speaker vector only, without codes and transcript of the clip.", "--x-vector-only"),
    ] = False
    ref_pad: Annotated[
        float | None,
        value("SECONDS", VOICE, "Silence added after the clip, 0 to 5. Default: 0.5.", "--ref-pad", min=0, max=5),
    ] = None

    def voice(self, clip: Path, tts: TTS, quiet: bool) -> Voice:
        """The voice of a clip. Raises AudioError, TextError, OptionError."""
        from ..voice.clip import REFERENCE_PAD_SECONDS
        from ..voice.voice import Voice

        transcript = self._transcript(clip)
        if transcript is None and self.ref_pad is not None:
            raise OptionError("--ref-pad needs a transcript of the clip", hint="give --ref-text too")
        pad_seconds = REFERENCE_PAD_SECONDS if self.ref_pad is None else self.ref_pad
        voice = Voice.from_audio(clip, tts, transcript=transcript, pad_seconds=pad_seconds)
        if voice.transcript and self.ref_text is None and self.ref_text_file is None and not quiet:
            stderr.print(f"transcript: {printable(str(_text_next_to(clip)))}", soft_wrap=True, markup=False)
        print_notes(voice.notes)
        if transcript is None and not self.x_vector_only and not quiet:
            stderr.print(
                "hint: with a transcript of the clip (--ref-text) the voice comes closer to it", soft_wrap=True
            )
        return voice

    def _transcript(self, clip: Path) -> str | None:
        """As given, or from the file next to the clip. Raises TextError, OptionError."""
        if self.x_vector_only:
            if self.ref_text is not None or self.ref_text_file is not None:
                raise OptionError("--x-vector-only uses no transcript: give one or the other")
            return None
        if self.ref_text is not None and self.ref_text_file is not None:
            raise OptionError("--ref-text and --ref-text-file both give the transcript: give one of them")
        if self.ref_text is None and self.ref_text_file is None:
            return _transcript_next_to(clip)
        transcript = read_text(self.ref_text_file) if self.ref_text_file is not None else self.ref_text
        if not transcript or not transcript.strip():
            raise TextError("the transcript of the clip is empty", hint="use --x-vector-only to clone without one")
        return transcript


@dataclass(frozen=True)
class VoiceOptions:
    """The voice to speak in."""

    voice: Annotated[
        str | None,
        value(
            "VOICE",
            VOICE,
            "Name of a saved or shipped voice, or an audio file to clone. none: the model chooses.",
            "--voice",
            autocompletion=known_voices,
        ),
    ] = None
    clip: ClipOptions = field(default_factory=ClipOptions)
    voices: VoicesOption = None

    def chosen(self, tts: TTS, quiet: bool) -> Voice | None:
        """The voice of the clip or of that name; None if no voice was named. Prints its notes. Raises Error."""
        from ..voice.shipped import shipped_voices
        from ..voice.store import NO_VOICE, VoiceStore
        from ..voice.voice import Voice

        if self.voice is None:
            if self.clip == ClipOptions(x_vector_only=True) and tts.default_voice is not None:
                return tts.resolve(tts.default_voice.without_codes())
            if self.clip != ClipOptions():
                raise OptionError(
                    "--ref-text, --ref-text-file, --ref-pad and --x-vector-only need a clip",
                    hint="give the clip with --voice",
                )
            return None
        if self.voice.lower() == NO_VOICE:
            if self.clip != ClipOptions():
                message = f"--voice {self.voice} lets the model choose the voice: leave out the options for a clip"
                raise OptionError(message)
            return Voice()

        store, path = VoiceStore(voices_folder(self.voices)), Path(self.voice)
        looks_like_clip = path.suffix or path.parent != Path()
        if os.path.isfile(path) or (looks_like_clip and self.voice not in store.names()):
            return self.clip.voice(path, tts, quiet)
        is_saved = store.path(self.voice).is_file()
        if not is_saved and self.voice not in (tts.shipped_voices or shipped_voices(tts.name)):
            known = ", ".join([*store.names(), *tts.shipped_voices]) or "none yet"
            message = f"no voice named {self.voice!r} is shipped with this model or in {store.folder}"
            raise VoiceError(message, hint=f"known voices: {known}")
        if self.clip != ClipOptions(x_vector_only=self.clip.x_vector_only):
            message = f"{self.voice!r} is not a clip: --ref-text, --ref-text-file and --ref-pad are for clips"
            raise OptionError(message)
        voice = store.load(self.voice) if is_saved else Voice.shipped(self.voice)
        if self.clip.x_vector_only and is_saved and voice.speaker is None:
            raise OptionError(f"the saved voice {self.voice!r} has no speaker vector", hint="leave out --x-vector-only")
        return tts.resolve(voice.without_codes() if self.clip.x_vector_only else voice)

    def or_preferred(self, tts: TTS) -> VoiceOptions:
        """With the environment's voice if none was named; a model that cannot clone ignores it."""
        preferred = os.environ.get(ENVIRONMENT)
        given = self.voice is not None or self.clip != ClipOptions(x_vector_only=self.clip.x_vector_only)
        return self if given or not preferred or tts.kind != "base" else replace(self, voice=preferred)


def _text_next_to(clip: Path) -> Path:
    return clip.with_suffix(".txt")


def _transcript_next_to(clip: Path) -> str | None:
    """The text of the .txt with the clip's name, if there is one. It was not named, so a fault of it is a warning."""
    file = _text_next_to(clip)
    if file == clip or not file.is_file():
        return None
    try:
        transcript = read_text(file)
    except TextError as error:
        stderr.print(f"warning: {printable(str(error))}; the clip is cloned without it", soft_wrap=True, markup=False)
        return None
    if not transcript.strip():
        message = f"warning: {printable(str(file))}: it is empty; the clip is cloned without a transcript"
        stderr.print(message, soft_wrap=True, markup=False)
        return None
    return transcript
