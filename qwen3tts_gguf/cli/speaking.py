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

    temperature: Annotated[float | None, typer.Option(help="Of the talker. Default: the model's own.")] = None
    top_k: Annotated[int | None, typer.Option(help="0 keeps all.")] = None
    top_p: Annotated[float | None, typer.Option(help="1 keeps all.")] = None
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none.")] = None
    sub_temperature: Annotated[float | None, typer.Option(help="Of the code predictor, as the next three.")] = None
    sub_top_k: Annotated[int | None, typer.Option(help="0 keeps all.")] = None
    sub_top_p: Annotated[float | None, typer.Option(help="1 keeps all.")] = None
    sub_repetition_penalty: Annotated[float | None, typer.Option(help="1, the default, is none.")] = None


LayoutOption = Annotated[TextLayout, typer.Option(help="All text before the first sound, or a token a frame.")]


@expanded
def speak(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What to speak; - reads it from stdin.")],
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voice_options: VoiceOptions = VoiceOptions(),
    speaker: Annotated[str | None, typer.Option(help="A preset of a CustomVoice model.")] = None,
    instruct: Annotated[str | None, typer.Option(help="How to speak; for VoiceDesign, what voice.")] = None,
    save_voice: Annotated[str | None, typer.Option(help="Save this speech as a voice of that name.")] = None,
    output: OutputOption = Path("speech.wav"),
    language: LanguageOption = None,
    layout: LayoutOption = TextLayout.WHOLE,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a speech. Default: a new one.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest code each time; sounds worse.")] = False,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="80 ms each; speech that needs more has failed. Default: by the text.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="New attempts after a failed one; not on stdout.")] = 2,
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="When the last attempt fails too, write what it spoke.")
    ] = False,
    sampling: SamplingOptions = SamplingOptions(),
    threads: ThreadsOption = None,
    codec_compute: CodecComputeOption = None,
    force: Annotated[bool, typer.Option("--force", help="Load a model for which memory seems too small.")] = False,
    codes: Annotated[Path | None, typer.Option(help="Also save the codes: .npy, int32, frames x 16.")] = None,
    clean: Annotated[TextMarks | None, typer.Option(help="Take the marks of a format out of the text.")] = None,
    live_options: LiveOptions = LiveOptions(),
    quiet: QuietOption = False,
) -> None:
    """Speak TEXT.

    A Base model has voices by name (--voice; voice list shows them) and speaks like a clip, closest with the words said
    in it (--ref-text); a CustomVoice model has presets (--speaker); a VoiceDesign model follows a description
    (--instruct).

    qwen3tts speak "Good morning." --voice ref.wav --ref-text "What ref.wav says." -o morning.wav

    echo "Read this." | qwen3tts speak - -o - | aplay

    llm "Tell me a story." | qwen3tts speak - --live -o - | aplay

    A text that starts with a dash is spoken too: "-5 degrees". One that looks like an option comes last, after --.

    A speech fails when the model does not end it: it needs more than --max-frames, repeats itself or falls silent. It
    is retried with a new seed; after --retries nothing is written and the exit code is 3. What was written to stdout
    cannot be taken back: there the speech stops with an error on stderr and exit code 3.
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
        raise OptionError("--speaker and --voice both choose who speaks: give one")
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
    stderr.print(f"warning: no model in {model}/: nano speaks, which knows {nano.DOMAIN}", soft_wrap=True)
    if not quiet:
        stderr.print(
            "hint: three lines make a model that says anything:\n"
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
        hint = f"take another name, or delete that voice: qwen3tts voice delete {shlex.quote(name)}"
        raise VoiceError(f"there is a voice named {name!r} already", hint=hint)


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
