"""The command line: the only place that prints, exits, or reads the environment.

    __init__  the app, and how errors end it        console  what the commands share
    converting  speaking  books  batching  serving  voices  codec       the commands
    inspecting  devices  benching  verifying                            the commands
    voice_options  expanded  text_argument          what several commands take
    speech_output  reporting                        what they write
    wording                                         the library's parameters as flags

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an error, printed in one line, 2 a command that
was not understood, 3 speech that does not end, 4 a model that `verify` finds too far from its reference, 5 a batch
in which rows failed, 130 stopped by Ctrl-C, 143 by SIGTERM, 129 when the terminal was closed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO

import typer

from ..engine.threads import SPIN_COUNT
from ..errors import Error, NoEndOfSpeech
from . import (
    batching,
    benching,
    books,
    codec,
    converting,
    devices,
    inspecting,
    serving,
    speaking,
    verifying,
    voices,
)
from .console import printable, stderr, stdout
from .panels import App, paragraphs
from .text_argument import DASH_HINT, QUOTES_HINT, TextCommand, UsageError
from .wording import in_flags

__all__ = ["app", "main"]

_EXIT_ERROR, _EXIT_NO_END_OF_SPEECH, _EXIT_INTERRUPTED = 1, 3, 130

app = App(
    name="qwen3tts",
    help=paragraphs(
        """Speak with Qwen3-TTS on an ordinary CPU, offline.

        Examples:

          qwen3tts speak "Seven three nine."
          qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base
          qwen3tts speak --help

        The first one speaks at once, with nano, the small model in the package. The second makes a model that can say
        anything.
        """
    ),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SPEAK, _MODELS, _VOICES = "Speak", "Models and this machine", "Voices and codes"
app.command(cls=TextCommand, rich_help_panel=_SPEAK)(speaking.speak)
app.command(rich_help_panel=_SPEAK)(books.read)
app.command(rich_help_panel=_SPEAK)(serving.serve)
app.command(rich_help_panel=_SPEAK)(batching.batch)
app.command(rich_help_panel=_MODELS)(converting.convert)
app.command(rich_help_panel=_MODELS)(inspecting.inspect)
app.command(rich_help_panel=_MODELS)(benching.bench)
app.command(rich_help_panel=_MODELS)(verifying.verify)
app.command(rich_help_panel=_MODELS)(devices.devices)
app.add_typer(voices.app, name="voice", rich_help_panel=_VOICES)
app.add_typer(codec.app, name="codec", rich_help_panel=_VOICES)


def main() -> NoReturn:
    """Run the command line; errors of the library become one line on stderr."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # before anything imports llama_cpp
    for stream in (sys.stdout, sys.stderr):
        _show_all_letters(stream)
    _stop_on_signals()
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:  # a command that was not understood
        error.message = str(error.message).removeprefix("Value error, ")
        error.show()
        if hint := _usage_hint(error):
            stderr.print(f"hint: {hint}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(_EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone; so do we
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_EXIT_ERROR)
    except (Error, MemoryError, OSError) as error:  # OSError: of a path that nobody could say more about
        if "--debug" in sys.argv[1:]:
            traceback.print_exc()
        message = "there is not enough memory for this" if isinstance(error, MemoryError) else in_flags(str(error))
        stderr.print(f"error: {printable(message)}", markup=False, soft_wrap=True)
        sys.exit(_EXIT_NO_END_OF_SPEECH if isinstance(error, NoEndOfSpeech) else _EXIT_ERROR)


def _usage_hint(error: Any) -> str:
    """How a text is given to `speak`, where that may be what went wrong."""
    context = getattr(error, "ctx", None)
    if context is None or context.command.name != "speak":
        return ""
    if type(error).__name__ in ("NoSuchOption", "MissingParameter"):
        return DASH_HINT
    return QUOTES_HINT if "extra argument" in error.message else ""


def _show_all_letters(stream: TextIO) -> None:
    """A letter that the console's encoding lacks is printed as its escape, instead of ending the program."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _stop_on_signals() -> None:
    """SIGTERM and a closed terminal end the program as Ctrl-C does: no unfinished file stays. `nohup` is respected."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _show_version(wanted: bool) -> None:
    if wanted:
        versions = {name: _installed_version(name) for name in ("qwen3tts-gguf", "llama-cpp-python")}
        stdout.print(", ".join(f"{name} {version}" for name, version in versions.items()))
        raise typer.Exit


def _installed_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "not installed"


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show llama.cpp's log and tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the versions and exit."),
    ] = False,
) -> None:
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s: %(message)s")
