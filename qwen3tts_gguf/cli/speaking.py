"""`qwen3tts speak`"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OptionError, VoiceError
from ..speech.text import strip_markdown
from .console import (
    DEFAULT_MODELS,
    CodecComputeOption,
    LanguageOption,
    MmprojOption,
    ModelOption,
    OutputOption,
    QuietOption,
    ThreadsOption,
    amx_setting,
    model_or_nano,
    output_target,
    require_npy,
    save_array,
    stderr,
    voices_folder,
)
from .expanded import expanded
from .live_input import LiveOptions, live_attempt, speak_sentences
from .panels import MACHINE, OUTPUT, SAMPLING, TEXT, VOICE, flag, value
from .speech_output import report, speak_to
from .text_argument import read_stdin
from .voice_options import VoiceOptions

if TYPE_CHECKING:
    from ..tts import TTS, Utterance
    from ..voice.voice import Voice

__all__ = ["LayoutOption", "TextLayout", "speak"]


class TextLayout(str, Enum):
    """`SpeechOptions.layout`"""

    WHOLE = "whole"
    STEPWISE = "stepwise"


class TextMarks(str, Enum):
    """Formats whose marks can be taken out."""

    MARKDOWN = "markdown"


@dataclass(frozen=True)
class SamplingOptions:
    """Fields of `SpeechOptions`."""

    temperature: Annotated[
        float | None, value("X", SAMPLING, "Talker temperature. Default: from the model.", "--temperature")
    ] = None
    top_k: Annotated[
        int | None, value("N", SAMPLING, "Talker top-k; 0 is off. Default: from the model.", "--top-k")
    ] = None
    top_p: Annotated[
        float | None, value("X", SAMPLING, "Talker top-p; 1 is off. Default: from the model.", "--top-p")
    ] = None
    repetition_penalty: Annotated[
        float | None,
        value("X", SAMPLING, "Talker repetition penalty; 1 is off. Default: from the model.", "--repetition-penalty"),
    ] = None
    sub_temperature: Annotated[
        float | None, value("X", SAMPLING, "Code predictor temperature. Default: from the model.", "--sub-temperature")
    ] = None
    sub_top_k: Annotated[
        int | None, value("N", SAMPLING, "Code predictor top-k; 0 is off. Default: from the model.", "--sub-top-k")
    ] = None
    sub_top_p: Annotated[
        float | None, value("X", SAMPLING, "Code predictor top-p; 1 is off. Default: from the model.", "--sub-top-p")
    ] = None
    sub_repetition_penalty: Annotated[
        float | None,
        value("X", SAMPLING, "Code predictor repetition penalty; 1, the default, is off.", "--sub-repetition-penalty"),
    ] = None


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
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Text to speak; - reads it from stdin.")],
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voice_options: VoiceOptions = VoiceOptions(),
    speaker: Annotated[str | None, value("NAME", VOICE, "Preset speaker of a CustomVoice model.", "--speaker")] = None,
    instruct: Annotated[
        str | None,
        value("TEXT", VOICE, "Speaking style; for a VoiceDesign model, description of the voice.", "--instruct"),
    ] = None,
    save_voice: Annotated[
        str | None, value("NAME", VOICE, "Save this speech under NAME as a voice to clone.", "--save-voice")
    ] = None,
    output: OutputOption = Path("speech.wav"),
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
        int, value("N", TEXT, "New attempts after a failed one; none with -o -.", "--retries", min=0)
    ] = 2,
    keep_partial: Annotated[
        bool, flag(OUTPUT, "If the last attempt fails too, write what it spoke.", "--keep-partial")
    ] = False,
    sampling: SamplingOptions = SamplingOptions(),
    threads: ThreadsOption = None,
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
    --ref-text). A CustomVoice model has presets (--speaker). A VoiceDesign model follows a description (--instruct).

    Examples:

      qwen3tts speak "Good morning."
      qwen3tts speak "Good morning." --voice yuki -o morning.mp3
      qwen3tts speak "Hello." --voice ref.wav --ref-text "Words in ref.wav."
      echo "Read this." | qwen3tts speak - -o - | aplay
      llm "Tell me a story." | qwen3tts speak - --live -o - | aplay

    A text may start with a dash: "-5 degrees". If it looks like an option, put it last, after --.

    Speech has failed if the model does not end it: it is longer than --max-frames, repeats itself or falls silent. It
    is then retried with a new seed. If all --retries fail, nothing is written and the exit code is 3. With -o - there
    are no retries, because sound that was written cannot be taken back.
    """
    started = time.perf_counter()
    needs_codes = codes is not None or save_voice is not None
    live_options.require_stdin(text, clean, needs_codes=needs_codes)
    if text == "-" and not live_options.live:
        text = read_stdin()
    if clean is not None:
        text = strip_markdown(text)
    if codes is not None:
        require_npy(codes)
    if voice_options.voice is not None and speaker is not None:
        raise OptionError("--speaker and --voice both choose the voice: give one of them")
    target = output_target(output)
    if save_voice is not None:
        _require_free(save_voice, voice_options.voices)

    from ..reading import read
    from ..tts import TTS, LiveText, SpeechOptions

    options = SpeechOptions(
        language=language, seed=seed, greedy=greedy, max_frames=max_frames, layout=layout.value,
        live_in_context=live_options.live_in_context,
        retries=retries if isinstance(target, Path) else 0, **vars(sampling),
    )  # fmt: skip
    there = _model_there_is(model, context, quiet)
    tts = TTS(
        there,
        mmproj=mmproj,
        n_threads=threads,
        amx=amx_setting(),
        codec_type=codec_compute.value if codec_compute else "",
        check_memory=not force,
    )
    if speaker is None:
        voice_options = voice_options.or_preferred(tts)
    voice = _with_words(voice_options.chosen(tts, quiet), speaker, instruct)
    loaded = time.perf_counter()
    known = voice.notes if voice else ()
    live, attempts = None, tts.attempts(text, voice, options)
    if live_options.live:
        by_sentence, pieces = live_options.comes_by_sentence(tts, needs_codes=needs_codes, quiet=quiet)
        if by_sentence:
            seconds = speak_sentences(target, read(tts, pieces, voice, options, split="sentence"), known, quiet)
            if not quiet:
                stderr.print(f"{seconds:.2f} s of speech -> {output}", soft_wrap=True, markup=False)
            return
        live = LiveText()
        attempts = live_attempt(tts, live, pieces, voice, options)
    utterance = speak_to(target, attempts, known, keep_partial, quiet)
    if codes is not None:
        save_array(codes, utterance.codes)
    if not quiet:
        now = time.perf_counter()
        report(utterance, output, work_seconds=None if live else now - loaded, wall_seconds=now - started)
    utterance.require_end()
    if save_voice is not None:
        _keep(tts, utterance, live.so_far if live else text, save_voice, voice_options.voices, quiet)


# -- with which model ------------------------------------------------------------------------------------------------


def _model_there_is(model: Path, context: typer.Context, quiet: bool) -> Path:
    """The model asked for; nano where none is asked for and none lies in the usual folder."""
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


def _with_words(voice: Voice | None, speaker: str | None, instruct: str | None) -> Voice | None:
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


def _keep(tts: TTS, utterance: Utterance, text: str, name: str, voices: Path | None, quiet: bool) -> None:
    """The speech just made, as a reference for cloning with a Base model: what it said is known."""
    from ..voice.store import VoiceStore
    from ..voice.voice import Voice

    kept = Voice.from_speech(utterance.codes, text, tts.codec_fingerprint)
    path = VoiceStore(voices_folder(voices)).save(name, kept)
    if not quiet:
        stderr.print(
            f"saved as voice {name!r} in {path.parent}: speak with a Base model and --voice {name!r}",
            soft_wrap=True,
            markup=False,
        )
