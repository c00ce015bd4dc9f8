"""The command line: the only place that prints, exits, or reads the environment.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an error said in one line, 2 a command that was
not understood, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from .errors import Error, OptionError, TextError

if TYPE_CHECKING:
    from .tts import Utterance

__all__ = ["app", "main"]

app = typer.Typer(
    name="qwen3tts",
    help="Speak with Qwen3-TTS on an ordinary CPU, offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
codec_app = typer.Typer(help="Codec codes to audio.", no_args_is_help=True)
app.add_typer(codec_app, name="codec")

_stderr = Console(stderr=True, highlight=False)
_stdout = Console(highlight=False)

_EXIT_ERROR, _EXIT_INTERRUPTED = 1, 130
_DEFAULT_MODELS = Path("models")

ModelOption = Annotated[
    Path,
    typer.Option("--model", "-m", envvar="QWEN3TTS_MODEL", help="The talker's .gguf, or a folder that holds one pair."),
]
MmprojOption = Annotated[Path | None, typer.Option(help="The mmproj half, if it is not beside the talker.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Processor threads. Default: all this process may use.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]


def main() -> NoReturn:
    """Run the command line; errors of the library become one line on stderr."""
    try:
        sys.exit(app(standalone_mode=False))
    except click.ClickException as error:  # a command that was not understood
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_EXIT_INTERRUPTED)
    except Error as error:
        if "--debug" in sys.argv[1:]:
            raise
        _stderr.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(_EXIT_ERROR)
    except BrokenPipeError:  # the reader of our output has gone; so do we
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_EXIT_ERROR)


def _show_version(wanted: bool) -> None:
    if wanted:
        versions = {name: importlib.metadata.version(name) for name in ("qwen3tts-gguf", "llama-cpp-python")}
        _stdout.print(", ".join(f"{name} {version}" for name, version in versions.items()))
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show llama.cpp's log, and tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which, and exit.")
    ] = False,
) -> None:
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")


# -- convert -----------------------------------------------------------------------------------------------------------


@app.command()
def convert(
    checkpoint: Annotated[str, typer.Argument(help="A folder, or a hub id: Qwen/Qwen3-TTS-12Hz-0.6B-Base.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the pair goes.")] = _DEFAULT_MODELS,
    type: Annotated[str, typer.Option(help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0.")] = "q8_0",
    codec_type: Annotated[str, typer.Option(help="f16, or f32: exact, larger, slower.")] = "f16",
    name: Annotated[str | None, typer.Option(help="The files' name. Default: the checkpoint's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Turn a Hugging Face checkpoint into a pair of GGUF files.

    Writes OUT/<name>-<TYPE>.gguf (the talker) and OUT/mmproj-<name>-<TYPE>.gguf (code predictor, codec, speaker
    encoder). q8_0 keeps what the model says; q4_0 and q4_k_m are faster and smaller.

    A hub id is the only thing that is ever fetched from a network; it needs: pip install 'qwen3tts-gguf\\[hub]'
    """
    from qwen3tts_convert import convert as convert_checkpoint

    with _bytes_progress(quiet) as on_progress:
        pair = convert_checkpoint(
            checkpoint, out, type=type, codec_type=codec_type, name=name, revision=revision, on_progress=on_progress
        )
    for path in (pair.talker, pair.mmproj):
        _stdout.print(str(path), soft_wrap=True)


@contextmanager
def _bytes_progress(quiet: bool) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr, transient=True, disable=quiet or not _stderr.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


# -- speak -------------------------------------------------------------------------------------------------------------


@app.command()
def speak(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from stdin.")],
    model: ModelOption = _DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voice: Annotated[Path | None, typer.Option(help="A clip to speak like; any format libsndfile reads.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".wav, .flac, .ogg or .mp3; - streams 16-bit WAV to stdout.")
    ] = Path("speech.wav"),
    language: Annotated[str, typer.Option("--language", "-l", help="A name or ISO code, or auto.")] = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a speech. Default: a new one.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="The likeliest code each time; sounds worse.")] = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="80 ms each. Default: from the text's length.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the talker. Default: the model's own.")] = None,
    top_k: Annotated[int | None, typer.Option(help="0 keeps all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="1 keeps all.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none.")] = None,
    sub_temperature: Annotated[float | None, typer.Option(help="Of the code predictor, as the next three.")] = None,
    sub_top_k: Annotated[int | None, typer.Option(help="0 keeps all.")] = None,
    sub_top_p: Annotated[float | None, typer.Option(help="1 keeps all.")] = None,
    sub_repetition_penalty: Annotated[float | None, typer.Option(help="1, the default, is none.")] = None,
    threads: ThreadsOption = None,
    codes: Annotated[Path | None, typer.Option(help="Also save the codes: .npy, int32, frames x 16.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Say TEXT, in the voice of a clip or in the model's own choice of one.

    qwen3tts speak "Good morning." --voice ref.wav -o morning.wav
    echo "Read this." | qwen3tts speak - -o - | aplay
    """
    started = time.perf_counter()
    if text == "-":
        text = _read_stdin()
    if codes is not None and codes.suffix != ".npy":
        raise OptionError(f"{codes}: codes are saved as .npy")
    target = _output_target(output)

    from .tts import TTS, SpeechOptions
    from .voice import Voice

    options = SpeechOptions(
        language=language, seed=seed, greedy=greedy, max_frames=max_frames,
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty,
        sub_temperature=sub_temperature, sub_top_k=sub_top_k, sub_top_p=sub_top_p,
        sub_repetition_penalty=sub_repetition_penalty,
    )  # fmt: skip
    tts = TTS(model, mmproj=mmproj, n_threads=threads)
    speaker = Voice.from_audio(voice, tts) if voice is not None else None
    loaded = time.perf_counter()
    with tts.utter(text, speaker, options) as utterance:
        _speak_to(utterance, target, quiet)
    if codes is not None:
        _save_codes(codes, utterance.codes)
    if not quiet:
        now = time.perf_counter()
        _report(utterance, output, work_seconds=now - loaded, wall_seconds=now - started)


def _speak_to(utterance: Utterance, target: Path | BinaryIO, quiet: bool) -> None:
    from .audio import open_sink

    columns = (SpinnerColumn(), TextColumn("{task.fields[seconds]:.1f} s of speech"))
    with (
        open_sink(target) as sink,
        Progress(*columns, console=_stderr, transient=True, disable=quiet or not _stderr.is_terminal) as progress,
    ):
        task = progress.add_task("", total=None, seconds=0.0)
        for samples in utterance:
            sink.write(samples)
            progress.update(task, seconds=utterance.seconds)


def _report(utterance: Utterance, output: Path, *, work_seconds: float, wall_seconds: float) -> None:
    spoken = utterance.seconds
    factor = f", RTF {work_seconds / spoken:.2f}" if spoken else ""
    _stderr.print(
        f"{spoken:.2f} s of speech in {work_seconds:.2f} s{factor} ({wall_seconds:.2f} s with loading), "
        f"seed {utterance.seed} -> {output}",
        soft_wrap=True,
        markup=False,
    )
    if not utterance.ended:
        _stderr.print(f"stopped after {utterance.max_frames} frames without an end of speech", soft_wrap=True)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise TextError("the text on stdin is not UTF-8") from None


def _output_target(output: Path) -> Path | BinaryIO:
    if str(output) != "-":
        return output
    if sys.stdout.isatty():
        raise OptionError("-o - writes audio to stdout: send it to a pipe or a file")
    return sys.stdout.buffer


def _save_codes(path: Path, codes: Any) -> None:
    import numpy as np

    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            np.save(file, codes, allow_pickle=False)
        unfinished.replace(path)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        unfinished.unlink(missing_ok=True)


# -- codec -------------------------------------------------------------------------------------------------------------


@codec_app.command("decode")
def codec_decode(
    codes: Annotated[Path, typer.Argument(help=".npy, whole numbers, frames x 16.")],
    model: ModelOption = _DEFAULT_MODELS,
    output: Annotated[
        Path, typer.Option("--output", "-o", help=".wav, .flac, .ogg or .mp3; - streams 16-bit WAV to stdout.")
    ] = Path("decoded.wav"),
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Turn codec codes, as `speak --codes` saves them, into audio."""
    target = _output_target(output)

    from .audio import open_sink
    from .codes import read_codes
    from .ggml.graph import Backend
    from .model_files import MmprojFile, find_mmproj
    from .nets.codec_decoder import CodecDecoder
    from .tts import default_threads

    decoder = CodecDecoder(MmprojFile(find_mmproj(model)), Backend(threads or default_threads()))
    frames = read_codes(codes, decoder.config.codebook_size)
    state = decoder.new_state()
    with (
        open_sink(target) as sink,
        Progress(console=_stderr, transient=True, disable=quiet or not _stderr.is_terminal) as progress,
    ):
        for frame in progress.track(frames, description="decoding"):
            sink.write(decoder.decode(frame[None], state))


# -- inspect -----------------------------------------------------------------------------------------------------------


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A .gguf of either half, or a folder of one pair.")] = _DEFAULT_MODELS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what a model is: its kind, geometry, languages, speakers, origin, and the type of every group of tensors."""
    from .inspection import inspect_model

    report = inspect_model(path)
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    for file in report["files"]:
        facts = Table(title=file["path"], title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
        for key, value in file["facts"].items():
            facts.add_row(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
        _stdout.print(facts)
        tensors = Table("tensors", "type", "count", "MB", box=None, padding=(0, 2, 0, 0))
        for group in file["tensors"]:
            tensors.add_row(group["name"], group["type"], str(group["count"]), f"{group['bytes'] / 1e6:.1f}")
        _stdout.print(tensors)
        _stdout.print()
