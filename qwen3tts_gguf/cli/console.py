"""What the commands share: consoles, options, progress, where output goes."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import Note, OptionError, TextError
from ..whole_file import whole_file
from .panels import MACHINE, MODEL, OUTPUT, TEXT, VOICE, flag, value
from .wording import in_flags

__all__ = [
    "DEFAULT_MODELS",
    "CodecComputeOption",
    "DeviceOption",
    "JsonOption",
    "LanguageOption",
    "ModelOption",
    "OutputOption",
    "QuietOption",
    "ThreadsOption",
    "VoicesOption",
    "amx_setting",
    "decoded",
    "is_default",
    "model_or_nano",
    "output_target",
    "print_json",
    "print_notes",
    "printable",
    "progress",
    "read_text",
    "require_folder",
    "require_npy",
    "save_array",
    "stderr",
    "stdout",
    "voices_folder",
]

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)

DEFAULT_MODELS = Path("models")

ModelOption = Annotated[
    Path,
    value(
        "PATH", MODEL, "The model: a folder with one pair of files, its talker file, or nano.", "--model", "-m",
        envvar="QWEN3TTS_MODEL",
    ),
]  # fmt: skip
MmprojOption = Annotated[
    Path | None, value("FILE", MODEL, "The mmproj file, if it is not next to the talker file.", "--mmproj")
]
OutputOption = Annotated[
    Path,
    value(
        "FILE",
        OUTPUT,
        "File, its format by suffix: .wav, .flac, .ogg, .opus, .mp3, .pcm. - streams 16-bit WAV to stdout.",
        "--output",
        "-o",
    ),
]


class CodecCompute(str, Enum):
    """`TTS(codec_type=...)`"""

    F16 = "f16"
    F32 = "f32"
    Q8_0 = "q8_0"


CodecComputeOption = Annotated[
    CodecCompute | None,
    value(
        "TYPE", MACHINE, "Number type the codec computes with: f16, f32 or q8_0 (faster with AMX, less exact). "
        "Default: f16 or f32, by the CPU.",
        "--codec-compute",
    ),
]  # fmt: skip
DeviceOption = Annotated[
    str,
    value(
        "DEVICE", MACHINE, "What computes: cpu, gpu, auto (a GPU with room for the model, else the CPU), or a name "
        "that qwen3tts devices lists.",
        "--device",
    ),
]  # fmt: skip
JsonOption = Annotated[bool, flag(OUTPUT, "Print JSON.", "--json")]
ThreadsOption = Annotated[
    int | None, value("N", MACHINE, "Number of threads. Default: all that this process may use.", "--threads", min=1)
]
QuietOption = Annotated[bool, flag(OUTPUT, "Print only warnings and errors.", "--quiet", "-q")]
LanguageOption = Annotated[
    str | None,
    value(
        "LANGUAGE", TEXT, "Language of the text: a name, an ISO code or a locale (french, fr, fr-CA). "
        "Default: the model recognizes it.", "--language", "-l",
    ),
]  # fmt: skip
VoicesOption = Annotated[
    Path | None,
    value(
        "FOLDER", VOICE, "Folder of the saved voices. Default: a folder of your user account.", "--voices",
        envvar="QWEN3TTS_VOICES",
    ),
]  # fmt: skip


def printable(text: str) -> str:
    """One line, without what a file or an argument could do to the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def print_notes(notes: Iterable[Note]) -> None:
    """Each as a warning of one line on stderr."""
    for note in notes:
        stderr.print(f"warning: {printable(in_flags(str(note)))}", soft_wrap=True, markup=False)


def print_json(report: Any) -> None:
    """To stdout: letters as they are where the console can show them, else as JSON's escapes."""
    text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(report, indent=2, allow_nan=False)
    print(text)


@contextmanager
def progress(*columns: ProgressColumn, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr, gone when it is done; none where stderr is no terminal."""
    columns = columns or (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        yield bar


def output_target(output: Path, format: str | None = None) -> Path | BinaryIO:
    """The file, or stdout for `-`. format: None: by the suffix. Raises AudioError for a file or format that cannot be
    written, OptionError for a terminal."""
    from ..audio_sink import require_stream_format, require_writable

    if str(output) != "-":
        require_writable(output, format)
        return output
    require_stream_format(format)
    if sys.stdout.isatty():
        raise OptionError("-o - writes audio to stdout, which is a terminal", hint="send it to a pipe or a file")
    return sys.stdout.buffer


def model_or_nano(model: Path, context: typer.Context) -> Path | None:
    """The model that was named; None if none was and none is in the default folder, so that nano speaks."""
    return model if not is_default(context, "model") or any(model.glob("*.gguf")) else None


def is_default(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter has its default because it was not given."""
    given = context.get_parameter_source(parameter)
    return given is None or given.name == "DEFAULT"


def voices_folder(chosen: Path | None) -> Path:
    """The folder of saved voices: as chosen, or the user's own."""
    if chosen is not None:
        return chosen
    import platformdirs

    return Path(platformdirs.user_data_dir("qwen3tts", appauthor=False)) / "voices"


def amx_setting() -> str:
    """How AMX is used, from the environment: QWEN3TTS_AMX is auto, on, rows or off."""
    return os.environ.get("QWEN3TTS_AMX") or "auto"


def read_text(path: Path) -> str:
    """A file of UTF-8 text. Raises TextError."""
    try:
        return decoded(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise TextError(f"{path}: no such file") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error.strerror})") from None


def decoded(content: bytes, what: str) -> str:
    """UTF-8, or the UTF-16 that Windows writes, which starts with a byte order mark. Raises TextError."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise TextError(f"{what}: not UTF-8 text", hint="save it as UTF-8") from None


def require_npy(path: Path) -> None:
    """Raises OptionError, before the work is done."""
    if path.suffix != ".npy":
        raise OptionError(f"{path}: codes can only be saved as .npy")
    require_folder(path)


def require_folder(path: Path) -> None:
    """That a file can be written there. Raises OptionError."""
    if not path.parent.is_dir():
        raise OptionError(f"{path}: cannot be written, because there is no folder {path.parent}")
    if path.is_dir():
        raise OptionError(f"{path}: cannot be written, because it is a folder")


def save_array(path: Path, array: Any) -> None:
    """As .npy; the file appears only when it is whole. Raises OptionError."""
    import numpy as np

    try:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written ({error.strerror})") from None
