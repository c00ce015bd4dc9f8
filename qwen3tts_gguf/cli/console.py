"""What the commands share: consoles, options, progress, where output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from ..errors import OptionError, TextError
from ..whole_file import whole_file

__all__ = [
    "DEFAULT_MODELS",
    "ModelOption",
    "OutputOption",
    "QuietOption",
    "ThreadsOption",
    "VoicesOption",
    "amx_setting",
    "output_target",
    "printable",
    "progress",
    "read_text",
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
    typer.Option(
        "--model", "-m", envvar="QWEN3TTS_MODEL", help="The talker's .gguf, a folder that holds one pair, or nano."
    ),
]
MmprojOption = Annotated[Path | None, typer.Option(help="The mmproj half, if it is not beside the talker.")]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help=".wav, .flac, .ogg or .mp3; - streams 16-bit WAV to stdout.")
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Processor threads. Default: all this process may use.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings and errors.")]
VoicesOption = Annotated[
    Path | None,
    typer.Option("--voices", envvar="QWEN3TTS_VOICES", help="Where voices are kept. Default: a folder of the user's."),
]


def printable(text: str) -> str:
    """One line, without what a file or an argument could say to the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


@contextmanager
def progress(*columns: ProgressColumn, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr, gone when it is done; none where stderr is no terminal."""
    columns = columns or (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal) as bar:
        yield bar


def output_target(output: Path) -> Path | BinaryIO:
    """The file, or stdout for `-`. Raises OptionError where that is a terminal."""
    if str(output) != "-":
        return output
    if sys.stdout.isatty():
        raise OptionError("-o - writes audio to stdout: send it to a pipe or a file")
    return sys.stdout.buffer


def voices_folder(chosen: Path | None) -> Path:
    """The folder of kept voices: as chosen, or the user's own."""
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
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise TextError(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise TextError(f"{path}: cannot be read ({error.strerror})") from None


def require_npy(path: Path) -> None:
    """Raises OptionError, before the work is done."""
    if path.suffix != ".npy":
        raise OptionError(f"{path}: codes are saved as .npy")


def save_array(path: Path, array: Any) -> None:
    """As .npy; the file appears only when it is whole. Raises OptionError."""
    import numpy as np

    try:
        with whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise OptionError(f"{path}: cannot be written ({error.strerror})") from None
