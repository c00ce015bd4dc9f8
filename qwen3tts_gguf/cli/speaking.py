"""`qwen3tts speak`"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.progress import SpinnerColumn, TextColumn

from ..errors import OptionError, TextError
from .console import (
    DEFAULT_MODELS,
    MmprojOption,
    ModelOption,
    OutputOption,
    QuietOption,
    ThreadsOption,
    VoicesOption,
    amx_setting,
    output_target,
    progress,
    read_text,
    require_npy,
    save_array,
    stderr,
    voices_folder,
)

if TYPE_CHECKING:
    from ..tts import TTS, Utterance
    from ..voice.voice import Voice

__all__ = [
    "LayoutOption", "RefPadOption", "RefTextFileOption", "RefTextOption", "TextLayout", "VoiceOption", "XVectorOption",
    "chosen_voice", "clip_voice", "speak",
]  # fmt: skip


class TextLayout(str, Enum):
    """`SpeechOptions.layout`"""

    WHOLE = "whole"
    STEPWISE = "stepwise"


LayoutOption = Annotated[TextLayout, typer.Option(help="All text before the first sound, or a token a frame.")]
VoiceOption = Annotated[str | None, typer.Option(help="A clip to speak like, or the name of a kept voice.")]
RefTextOption = Annotated[str | None, typer.Option(help="What the clip says; then it is cloned in context.")]
RefTextFileOption = Annotated[
    Path | None, typer.Option(help="The same from a file. Default: a .txt beside the clip, if there is one.")
]
RefPadOption = Annotated[
    float | None, typer.Option(min=0, max=5, help="Seconds of silence after the clip in its codes. Default: 0.5.")
]
XVectorOption = Annotated[bool, typer.Option("--x-vector-only", help="Clone by the speaker vector alone.")]


def speak(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voice: VoiceOption = None,
    ref_text: RefTextOption = None,
    ref_text_file: RefTextFileOption = None,
    x_vector_only: XVectorOption = False,
    ref_pad: RefPadOption = None,
    speaker: Annotated[str | None, typer.Option(help="A preset of a CustomVoice model.")] = None,
    instruct: Annotated[str | None, typer.Option(help="How to speak; for VoiceDesign, what voice.")] = None,
    save_voice: Annotated[str | None, typer.Option(help="Keep this speech as a voice of that name.")] = None,
    voices: VoicesOption = None,
    output: OutputOption = Path("speech.wav"),
    language: Annotated[str | None, typer.Option("--language", "-l", help="Name or ISO code. Default: auto.")] = None,
    layout: LayoutOption = TextLayout.WHOLE,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a speech. Default: a new one.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest code each time; sounds worse.")] = False,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="80 ms each; speech that needs more has failed. Default: 10 a text token.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="New attempts after a failed one; not on stdout.")] = 2,
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="When the last attempt fails too, keep what it said.")
    ] = False,
    temperature: Annotated[float | None, typer.Option(help="Of the talker. Default: the model's own.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 keeps all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 keeps all.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none.")] = None,
    sub_temperature: Annotated[float | None, typer.Option(help="Of the code predictor, as the next three.")] = None,
    sub_top_k: Annotated[int | None, typer.Option(help="0 keeps all.")] = None,
    sub_top_p: Annotated[float | None, typer.Option(help="1 keeps all.")] = None,
    sub_repetition_penalty: Annotated[float | None, typer.Option(help="1, the default, is none.")] = None,
    threads: ThreadsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Load a model for which memory seems too small.")] = False,
    codes: Annotated[Path | None, typer.Option(help="Also save the codes: .npy, int32, frames x 16.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Say TEXT.

    A Base model speaks like a clip (--voice), closest with the words said in it (--ref-text); a CustomVoice model has
    presets (--speaker); a VoiceDesign model follows a description (--instruct).

    qwen3tts speak "Good morning." --voice ref.wav --ref-text "What ref.wav says." -o morning.wav

    echo "Read this." | qwen3tts speak - -o - | aplay

    A speech fails when the model comes to no end: it needs more than --max-frames, repeats itself or falls silent. It
    is begun anew with another seed; when --retries are used up, nothing is written and the exit code is 3. What has
    gone to stdout cannot be taken back: there it stops, says so on stderr, and exits with 3.
    """
    started = time.perf_counter()
    if text == "-":
        text = _read_stdin()
    if codes is not None:
        require_npy(codes)
    if voice is not None and speaker is not None:
        raise OptionError("--speaker and --voice both say who speaks: give one")
    target = output_target(output)
    if save_voice is not None:
        from ..voice.store import VoiceStore

        VoiceStore(voices_folder(voices)).require_free(save_voice)

    from ..tts import TTS, SpeechOptions

    options = SpeechOptions(
        language=language, seed=seed, greedy=greedy, max_frames=max_frames, layout=layout.value,
        retries=retries if isinstance(target, Path) else 0,
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty,
        sub_temperature=sub_temperature, sub_top_k=sub_top_k, sub_top_p=sub_top_p,
        sub_repetition_penalty=sub_repetition_penalty,
    )  # fmt: skip
    there = _model_there_is(model, context, quiet)
    tts = TTS(there, mmproj=mmproj, n_threads=threads, amx=amx_setting(), check_memory=not force)
    chosen = chosen_voice(tts, voice, ref_text, ref_text_file, x_vector_only, ref_pad, voices, quiet)
    chosen = _with_words(chosen, speaker, instruct)
    loaded = time.perf_counter()
    utterance = _speak_to(target, tts.attempts(text, chosen, options), keep_partial, quiet)
    if codes is not None:
        save_array(codes, utterance.codes)
    if not quiet:
        now = time.perf_counter()
        _report(utterance, output, work_seconds=now - loaded, wall_seconds=now - started)
    utterance.require_end()
    if save_voice is not None:
        _keep(tts, utterance, text, save_voice, voices, quiet)


# -- with which model ------------------------------------------------------------------------------------------------


def _model_there_is(model: Path, context: typer.Context, quiet: bool) -> Path:
    """The model asked for; nano where none is asked for and none lies in the usual folder."""
    given = context.get_parameter_source("model")
    if (given is not None and given.name != "DEFAULT") or any(model.glob("*.gguf")):
        return model
    from ..model import nano

    folder = nano.folder()
    stderr.print(f"warning: no model in {model}/: nano speaks, which knows {nano.DOMAIN}", soft_wrap=True)
    if not quiet:
        stderr.print(
            "hint: three lines make a model that says anything:\n"
            "  pip install 'qwen3tts-gguf[hub]'\n"
            "  qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base\n"
            '  qwen3tts speak "Good morning." --voice ref.wav',
            soft_wrap=True,
            markup=False,
        )
    return folder


# -- who speaks ------------------------------------------------------------------------------------------------------


def chosen_voice(
    tts: TTS,
    voice: str | None,
    ref_text: str | None,
    ref_text_file: Path | None,
    x_vector_only: bool,
    ref_pad: float | None,
    voices: Path | None,
    quiet: bool,
) -> Voice | None:
    if voice is None:
        if ref_text is not None or ref_text_file is not None or ref_pad is not None or x_vector_only:
            raise OptionError(
                "--ref-text, --ref-text-file, --ref-pad and --x-vector-only belong to a clip: name it with --voice"
            )
        return None
    from ..voice.store import VoiceStore

    store, clip = VoiceStore(voices_folder(voices)), Path(voice)
    looks_like_clip = clip.suffix or clip.parent != Path()
    if os.path.isfile(clip) or (looks_like_clip and voice not in store.names()):
        return clip_voice(tts, clip, ref_text, ref_text_file, x_vector_only, ref_pad, quiet)
    kept = store.load(voice)
    if ref_text is not None or ref_text_file is not None or ref_pad is not None:
        raise OptionError(f"{voice!r} is a kept voice: --ref-text, --ref-text-file and --ref-pad are for clips")
    if x_vector_only and kept.speaker is None:
        raise OptionError(f"the kept voice {voice!r} has no speaker vector: leave out --x-vector-only")
    return kept.without_codes() if x_vector_only else kept


def clip_voice(
    tts: TTS,
    clip: Path,
    ref_text: str | None,
    ref_text_file: Path | None,
    x_vector_only: bool,
    ref_pad: float | None,
    quiet: bool,
) -> Voice:
    """The voice of a clip, with the transcript given, or lying beside it. Raises AudioError, TextError, OptionError."""
    from ..voice.clip import REFERENCE_PAD_SECONDS
    from ..voice.voice import Voice

    if x_vector_only and (ref_text is not None or ref_text_file is not None):
        raise OptionError("--x-vector-only leaves the transcript out: say one or the other")
    if ref_text is not None and ref_text_file is not None:
        raise OptionError("--ref-text and --ref-text-file say the same thing: give one")
    beside = clip.with_suffix(".txt")
    if not x_vector_only and ref_text is None:
        if ref_text_file is not None:
            ref_text = read_text(ref_text_file)
        elif beside.is_file():
            ref_text = read_text(beside)
    if ref_text is not None and not ref_text.strip():
        raise TextError("the transcript of the clip is empty")
    if ref_text is None and ref_pad is not None:
        raise OptionError("--ref-pad is for a clip's codes, which are used with a transcript: give --ref-text too")
    pad_seconds = REFERENCE_PAD_SECONDS if ref_pad is None else ref_pad
    voice = Voice.from_audio(clip, tts, transcript=ref_text, pad_seconds=pad_seconds)
    if ref_text is None and not x_vector_only and not quiet:
        stderr.print("hint: with --ref-text and the words said in the clip, the voice comes closer", soft_wrap=True)
    return voice


def _with_words(voice: Voice | None, speaker: str | None, instruct: str | None) -> Voice | None:
    from ..voice.voice import Voice

    if speaker is not None:
        voice = Voice.preset(speaker)
    if instruct is not None:
        voice = replace(voice or Voice(), instruct=instruct)
    return voice


def _keep(tts: TTS, utterance: Utterance, text: str, name: str, voices: Path | None, quiet: bool) -> None:
    """The speech just made, as a reference for cloning with a Base model: what it said is known."""
    from ..voice.store import VoiceStore
    from ..voice.voice import Voice

    kept = Voice.from_speech(utterance.codes, text, tts.codec_fingerprint)
    path = VoiceStore(voices_folder(voices)).save(name, kept)
    if not quiet:
        stderr.print(
            f"kept as voice {name!r} in {path.parent}: speak with a Base model and --voice {name!r}",
            soft_wrap=True,
            markup=False,
        )


# -- in and out ------------------------------------------------------------------------------------------------------

_RESCUE_FROM_FILE = "--keep-partial keeps what was said"
_RESCUE_FROM_STREAM = "what has gone to stdout stays there; -o FILE tries again with another seed"


def _speak_to(target: Path | BinaryIO, attempts: Iterator[Utterance], keep_partial: bool, quiet: bool) -> Utterance:
    """Write an attempt, and tell which: a stream gets every frame as it is made, a file only what is to be kept.

    Raises NoEndOfSpeech, unless a part is to be kept.
    """
    from ..audio import open_sink

    is_file = isinstance(target, Path)
    attempts = chain([next(attempts)], attempts)  # what is refused is refused before anything is written
    columns = (SpinnerColumn(), TextColumn("{task.fields[seconds]:.1f} s of speech"))
    with open_sink(target) as sink, progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("", total=None, seconds=0.0)
        for n_failed, utterance in enumerate(attempts):
            if n_failed:
                stderr.print(f"warning: no end of speech; trying again with seed {utterance.seed}", soft_wrap=True)
            frames = []
            for samples in utterance.pieces() if is_file else utterance:
                if is_file:
                    frames.append(samples)
                else:
                    sink.write(samples)
                bar.update(task, seconds=utterance.seconds)
        if not keep_partial:
            if not utterance.ended and not quiet:
                stderr.print(f"hint: {_RESCUE_FROM_FILE if is_file else _RESCUE_FROM_STREAM}", soft_wrap=True)
            utterance.require_end()
        for samples in frames:
            sink.write(samples)
    return utterance


def _report(utterance: Utterance, output: Path, *, work_seconds: float, wall_seconds: float) -> None:
    spoken = utterance.seconds
    factor = f", RTF {work_seconds / spoken:.2f}" if spoken else ""
    stderr.print(
        f"{spoken:.2f} s of speech in {work_seconds:.2f} s{factor} ({wall_seconds:.2f} s with loading), "
        f"seed {utterance.seed} -> {output}",
        soft_wrap=True,
        markup=False,
    )


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise TextError("the text on stdin is not UTF-8") from None
