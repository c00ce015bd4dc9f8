"""`qwen3tts speak`"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OptionError, VoiceError
from ..speech.text import strip_markdown
from .console import (
    DEFAULT_MODELS,
    CodecComputeOption,
    DeviceOption,
    LanguageOption,
    MmprojOption,
    ModelOption,
    OutputOption,
    QuietOption,
    ThreadsOption,
    amx_setting,
    is_default,
    model_or_nano,
    print_notes,
    require_npy,
    save_array,
    stderr,
    voices_folder,
)
from .expanded import expanded
from .line_files import speak_lines
from .live_input import LiveOptions, live_attempt
from .long_text import LongTextOptions, Spoken
from .panels import MACHINE, OUTPUT, SAMPLING, TEXT, VOICE, flag, value
from .sampling_options import SamplingOptions
from .sound_output import SoundOptions
from .speech_output import report, speak_to
from .voice_options import InstructOption, SpeakerOption, VoiceOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..tts import TTS, Utterance
    from ..voice.voice import Voice

__all__ = ["LayoutOption", "TextLayout", "chosen_model", "speak", "with_words"]


class TextLayout(str, Enum):
    """`SpeechOptions.layout`"""

    WHOLE = "whole"
    STEPWISE = "stepwise"


class TextMarks(str, Enum):
    """Formats whose marks can be taken out."""

    MARKDOWN = "markdown"


LayoutOption = Annotated[
    TextLayout,
    value(
        "LAYOUT", TEXT, "How the model gets the text: whole (all of it before the first sound) or stepwise (one token "
        "per frame).", "--layout",
    ),
]  # fmt: skip


@expanded
def speak(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="Text to speak, of any length; - reads it from stdin.")
    ] = None,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voice_options: VoiceOptions = VoiceOptions(),
    speaker: SpeakerOption = None,
    instruct: InstructOption = None,
    save_voice: Annotated[
        str | None, value("NAME", VOICE, "Save this speech under NAME as a voice to clone.", "--save-voice")
    ] = None,
    long_text: LongTextOptions = LongTextOptions(),
    output: OutputOption = Path("speech.wav"),
    sound: SoundOptions = SoundOptions(),
    language: LanguageOption = None,
    layout: LayoutOption = TextLayout.WHOLE,
    seed: Annotated[
        int | None,
        value("N", SAMPLING, "Seed; the same seed gives the same speech. Default: a new one.", "--seed", min=0),
    ] = None,
    greedy: Annotated[bool, flag(SAMPLING, "Take the likeliest code each time; sounds worse.", "--greedy")] = False,
    max_frames: Annotated[
        int | None,
        value(
            "N",
            TEXT,
            "Most frames, of 80 ms each, before the speech counts as failed. Default: by the text's length.",
            "--max-frames",
            min=1,
        ),
    ] = None,
    retries: Annotated[
        int, value("N", TEXT, "New attempts after a failed one; none with -o - or --play.", "--retries", min=0)
    ] = 2,
    keep_partial: Annotated[
        bool, flag(OUTPUT, "If speech fails or is stopped, keep what was written so far.", "--keep-partial")
    ] = False,
    sampling: SamplingOptions = SamplingOptions(),
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    codec_compute: CodecComputeOption = None,
    force: Annotated[bool, flag(MACHINE, "Load the model even if it seems too large for memory.", "--force")] = False,
    codes: Annotated[
        Path | None, value("FILE", OUTPUT, "Also save the codes: .npy, int32, frames x 16.", "--codes")
    ] = None,
    clean: Annotated[
        TextMarks | None, value("FORMAT", TEXT, "Remove the marks of a format from the text: markdown.", "--clean")
    ] = None,
    live_options: LiveOptions = LiveOptions(),
    quiet: QuietOption = False,
) -> None:
    """Speak a text into an audio file or to stdout.

    The voice depends on the kind of model. A Base model speaks in a named voice or clones a clip (--voice, best with
    --ref-text); without --voice it takes the one that QWEN3TTS_VOICE names, or the first shipped voice. A CustomVoice
    model has presets (--speaker). A VoiceDesign model follows a description (--instruct).

    Examples:

      qwen3tts speak "Good morning."
      qwen3tts speak "Good morning." --voice yuki -o morning.mp3
      qwen3tts speak "Hello." --voice ref.wav --ref-text "Words in ref.wav."
      qwen3tts speak -f story.txt --subtitles story.srt -o story.opus
      qwen3tts speak --lines sentences.txt -o sounds
      echo "Read this." | qwen3tts speak - -o - | aplay
      llm "Tell me a story." | qwen3tts speak - --live -o - | aplay

    A text of more than 300 letters is spoken in passages of whole sentences, in one voice, with pauses between them
    (--split, --pause).

    A text may start with a dash: "-5 degrees". If it looks like an option, put it last, after --.

    Speech has failed if the model does not end it: it is longer than --max-frames, repeats itself or falls silent. It
    is then retried with a new seed. If all --retries fail, nothing is written and the exit code is 3. With -o - and
    --play there are no retries, because sound that was heard cannot be taken back. A file appears when it is complete;
    with --keep-partial also after Ctrl-C or a failure.
    """
    started = time.perf_counter()
    needs_codes = codes is not None or save_voice is not None
    live_options.require_stdin(text, clean, needs_codes=needs_codes)
    content = "" if live_options.live else long_text.text(text)
    if clean is not None:
        content = strip_markdown(content)
    if codes is not None:
        require_npy(codes)
    if voice_options.voice is not None and speaker is not None:
        raise OptionError("--speaker and --voice both choose the voice: give one of them")
    has_default_output = is_default(context, "output")
    if long_text.lines is None:
        target = sound.target(output, is_default=has_default_output)
    else:
        if needs_codes or long_text.subtitles is not None:
            raise OptionError("--codes, --save-voice and --subtitles are for one text: leave them out with --lines")
        target = sound.folder_target(output, is_default=has_default_output)
    long_text.require_valid()
    if save_voice is not None:
        _require_free(save_voice, voice_options.voices)

    from ..tts import TTS, LiveText, SpeechOptions

    options = SpeechOptions(
        language=language, seed=seed, greedy=greedy, max_frames=max_frames, layout=layout.value,
        live_in_context=live_options.live_in_context,
        retries=retries if target.is_whole else 0, **vars(sampling),
    )  # fmt: skip
    there = chosen_model(model, context, quiet)
    tts = TTS(
        there,
        mmproj=mmproj,
        n_threads=threads,
        n_lanes="auto" if target.is_whole else 1,
        amx=amx_setting(),
        codec_type=codec_compute.value if codec_compute else "",
        device=device,
        check_memory=not force,
    )
    print_notes(tts.notes)
    if speaker is None:
        voice_options = voice_options.or_preferred(tts)
    voice = with_words(voice_options.chosen(tts, quiet), speaker, instruct)
    if long_text.lines is not None:
        speak_lines(tts, content, voice, options, target, long_text, keep_partial=keep_partial, quiet=quiet)
        return
    loaded = time.perf_counter()
    known = voice.notes if voice else ()
    is_long = not live_options.live and long_text.is_long(tts, content, language)
    if is_long and not target.is_whole and needs_codes:
        raise OptionError("--codes and --save-voice need a text in one passage, or a file: give -o FILE")
    live, attempts = None, tts.attempts(content, voice, options)
    arriving: Iterable[str] | None = None
    if live_options.live:
        by_sentence, pieces = live_options.by_sentence_and_text(tts, needs_codes=needs_codes, quiet=quiet)
        if by_sentence:
            arriving = pieces
        else:
            live = LiveText()
            attempts = live_attempt(tts, live, pieces, voice, options)
    spoken: Utterance | Spoken
    if is_long or arriving is not None:
        words = content if arriving is None else arriving
        spoken = long_text.read_aloud(tts, words, voice, options, target, keep_partial=keep_partial, quiet=quiet)
    else:
        spoken = speak_to(target, attempts, known, keep_partial, quiet)
    if codes is not None:
        save_array(codes, spoken.codes)
    if not quiet:
        now = time.perf_counter()
        report(
            spoken,
            "loudspeaker" if target.file is None else output,
            work_seconds=None if live_options.live else now - loaded,
            wall_seconds=now - started,
        )
    spoken.require_end()
    if save_voice is not None:
        words = live.so_far if live else content
        reference = spoken.first if isinstance(spoken, Spoken) else (spoken.codes, words)
        _save_voice(tts, *reference, save_voice, voice_options.voices, quiet)


# -- with which model ------------------------------------------------------------------------------------------------


def chosen_model(model: Path, context: typer.Context, quiet: bool) -> Path:
    """The model that was named; nano if none was and none is in the default folder."""
    if (asked := model_or_nano(model, context)) is not None:
        return asked
    from ..model import nano

    folder = nano.folder()
    stderr.print(
        f"warning: no model in {model}/: the built-in model nano is used, which only knows {nano.DOMAIN}",
        soft_wrap=True,
    )
    if not quiet:
        stderr.print(
            "hint: these commands give you a model that can say anything:\n"
            "  pip install 'qwen3tts-gguf[hub]'\n"
            "  qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base\n"
            '  qwen3tts speak "Good morning."',
            soft_wrap=True,
            markup=False,
        )
    return folder


# -- who speaks ------------------------------------------------------------------------------------------------------


def with_words(voice: Voice | None, speaker: str | None, instruct: str | None) -> Voice | None:
    from ..voice.voice import Voice

    if speaker is not None:
        voice = Voice.preset(speaker)
    if instruct is not None:
        voice = replace(voice or Voice(), instruct=instruct)
    return voice


def _require_free(name: str, voices: Path | None) -> None:
    """Raises VoiceError where a voice cannot be saved under that name."""
    from ..voice.store import VoiceStore

    if VoiceStore(voices_folder(voices)).path(name).exists():
        hint = f"choose another name, or delete that voice: qwen3tts voice delete {shlex.quote(name)}"
        raise VoiceError(f"a voice named {name!r} exists already", hint=hint)


def _save_voice(tts: TTS, codes: NDArray[np.int32], text: str, name: str, voices: Path | None, quiet: bool) -> None:
    """The speech just made, as a reference for cloning with a Base model: its words are known."""
    from ..voice.store import VoiceStore
    from ..voice.voice import Voice

    voice = Voice.from_speech(codes, text, tts.codec_fingerprint)
    path = VoiceStore(voices_folder(voices)).save(name, voice)
    if not quiet:
        stderr.print(
            f"saved as voice {name!r} in {path.parent}: speak with a Base model and --voice {name!r}",
            soft_wrap=True,
            markup=False,
        )
