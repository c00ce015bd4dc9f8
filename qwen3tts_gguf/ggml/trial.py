"""Which extra buffer types work on this machine, tried where a crash does no harm: in a child process.

    found = try_buffer_types(this_machine())
    found.verdicts          {"AMX": Verdict.ROWS, "CPU_REPACK": Verdict.WORKS}
    found.notes             what could not be decided, and what to do about it

ggml offers a buffer type when it was compiled for it, which does not mean that it works: gcc 12.2 compiles an AMX
product of several rows into a crash, and one of a single row into a good one. So before a weight is placed in any such
type, a child process multiplies with it: every weight type that ggml accepts there, wide and narrow matrices, first
single rows, then several at once, and compares with the dequantized weights.

A verdict is remembered on disk, for this file of ggml on this CPU. Only a crash or a wrong answer is a verdict. A child
that runs into its time limit is tried once more; then, and when no child can be started, the type stays off until this
process ends, with a note.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ..errors import Note
from ..whole_file import whole_file
from .library import cpu_library
from .machine import Machine
from .trial_products import SEVERAL_ROWS, SINGLE_ROWS, STARTED, WRONG

__all__ = ["Trials", "Verdict", "child_command", "try_buffer_types"]

_VERSION = 1
"""Version of what the child does: with a new number every type is tried again."""
_SECONDS = 20.0
"""A child takes 0.2 s on an idle machine."""
_CHILD = f"""
import os, sys
os.environ["GGML_NO_BACKTRACE"] = "1"  # by a debugger, when ggml aborts
os.environ["GOMP_SPINCOUNT"] = "0"  # threads that wait for each other do not spin: the machine may be busy
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's do spin
sys.path[:] = sys.argv[2:]
from {__package__}.trial_products import report
for line in report(sys.argv[1]):
    print(line, flush=True)
"""
_CRASHES = ("SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS")
_WINDOWS_EXCEPTION, _WINDOWS_ABORT = 0xC0000000, 3  # exit statuses: of an exception its code, from here on; of abort()


class Verdict(str, Enum):
    """What products in a buffer type can do here."""

    WORKS = "works"
    ROWS = "rows"
    """Right for a single row at a time; several at once crash or come out wrong."""
    OFF = "off"


@dataclass(frozen=True)
class Trials:
    """A verdict for each extra buffer type that ggml offers."""

    verdicts: Mapping[str, Verdict]
    notes: tuple[Note, ...] = ()


_lock = threading.Lock()
_undecided: dict[tuple[str, ...], Note] = {}
"""Per key, why a type stays off in this process."""


def try_buffer_types(
    machine: Machine,
    forced: Mapping[str, Verdict] | None = None,
    *,
    cache: Path | None = None,
    command: Sequence[str] | None = None,
    seconds: float = _SECONDS,
) -> Trials:
    """A verdict for each of the machine's extra buffer types.

    Args:
        forced: verdicts that are not to be questioned, by buffer type; nothing is tried or remembered for these.
        cache: the folder where verdicts are remembered; by default the user's. If there is none, or it cannot be
            used, nothing is remembered; that is not an error.
        command: starts the child; the name of the buffer type is added. By default this Python.
        seconds: after which a child is ended.
    """
    forced = {name: verdict for name, verdict in (forced or {}).items() if name in machine.buffer_types}
    folder = _user_cache() if cache is None else cache
    verdicts: dict[str, Verdict] = {}
    notes: list[Note] = []
    with _lock:
        keys = {name: _key(machine, name) for name in machine.buffer_types if name not in forced}
        to_try = []
        for name, key in keys.items():
            remembered = _remembered(folder, key)
            if remembered is not None:
                verdicts[name] = remembered
            elif key not in _undecided:
                to_try.append(name)
        for name, outcome in _outcomes(to_try, child_command() if command is None else command, seconds).items():
            if isinstance(outcome, _Undecided):
                _undecided[keys[name]] = _note(name, outcome)
            else:
                verdicts[name] = outcome
                _remember(folder, keys[name], outcome)
        for name, key in keys.items():
            if name not in verdicts:
                verdicts[name] = Verdict.OFF
                notes.append(_undecided[key])
    return Trials({name: forced.get(name) or verdicts[name] for name in machine.buffer_types}, tuple(notes))


# -- what is remembered ----------------------------------------------------------------------------------------------


def _user_cache() -> Path | None:
    """The user's cache folder; None where the system names none: "~" then stays as it is, and is no absolute path."""
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("qwen3tts", appauthor=False))
    return folder / "trials" if folder.is_absolute() else None


def _key(machine: Machine, name: str) -> tuple[str, ...]:
    """All that a verdict depends on."""
    library = size = changed = ""
    if cpu_library is not None:
        library = str(cpu_library)
        try:
            status = cpu_library.stat()
            size, changed = str(status.st_size), str(status.st_mtime_ns)
        except OSError:
            pass
    return (str(_VERSION), name, library, size, changed, machine.name, " ".join(sorted(machine.features)))


def _file(folder: Path, key: tuple[str, ...]) -> Path:
    return folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.json"


def _remembered(folder: Path | None, key: tuple[str, ...]) -> Verdict | None:
    if folder is None:
        return None
    try:
        found = json.loads(_file(folder, key).read_text("utf-8"))
        return Verdict(found["verdict"]) if found["key"] == list(key) else None
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        return None


def _remember(folder: Path | None, key: tuple[str, ...], verdict: Verdict) -> None:
    if folder is None or not key[3]:  # key[3] is the library's size: without it, nothing shows that the library changed
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(_file(folder, key)) as unfinished:
            unfinished.write_text(json.dumps({"key": key, "verdict": verdict.value}), "utf-8")
    except OSError:
        pass  # it is tried again next time


# -- the child, from outside -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Undecided:
    """A child that came to no verdict."""

    reason: str
    again: bool = False
    """Whether it may end better the next time."""


def child_command() -> list[str]:
    """What starts the child; empty where no Python is found that would.

    sys.executable may be another program that has Python inside, a frozen application or a server. Starting that one
    would start all it does.
    """
    if getattr(sys, "frozen", False):
        return []
    folder = Path(sys.prefix)
    candidates = [Path(sys.executable or ""), folder / "bin" / "python3", folder / "Scripts" / "python.exe"]
    for python in candidates:
        if python.name.lower().startswith(("python", "pypy")) and python.is_file():
            # Isolated, so that nothing of the current folder or the environment gets in; it imports what we imported.
            return [str(python), "-I", "-c", _CHILD]
    return []


def _outcomes(names: Sequence[str], command: Sequence[str], seconds: float) -> dict[str, Verdict | _Undecided]:
    """Tries them all at the same time, and once more those that may end better then."""
    found = _children(names, command, seconds)
    again = [name for name, outcome in found.items() if isinstance(outcome, _Undecided) and outcome.again]
    return found | _children(again, command, seconds)


def _children(names: Sequence[str], command: Sequence[str], seconds: float) -> dict[str, Verdict | _Undecided]:
    children = {name: _start(command, name) for name in names}
    try:
        return {name: _outcome(started, seconds) for name, started in children.items()}
    finally:
        for started in children.values():
            if started is not None and started.poll() is None:
                started.kill()
                started.communicate()


def _start(command: Sequence[str], name: str) -> subprocess.Popen[str] | None:
    if not command:
        return None
    try:
        return subprocess.Popen(
            [*command, name, *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what ggml prints when it crashes is not for the user
            text=True,
            errors="replace",
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError:
        return None


def _outcome(started: subprocess.Popen[str] | None, seconds: float) -> Verdict | _Undecided:
    if started is None:
        return _Undecided("could not be started")
    try:
        output, _ = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        return _Undecided(f"did not end within {seconds:.0f} s", again=True)
    lines, status = output.splitlines(), started.returncode
    if STARTED not in lines:
        return _Undecided("could not be started")
    if SEVERAL_ROWS in lines and status == 0:
        return Verdict.WORKS
    if WRONG in lines or _crashed(status):
        return Verdict.ROWS if SINGLE_ROWS in lines else Verdict.OFF
    return _Undecided(f"ended with status {status}", again=True)  # killed, or without memory


def _crashed(status: int) -> bool:
    if sys.platform == "win32":
        return status & 0xFFFFFFFF >= _WINDOWS_EXCEPTION or status == _WINDOWS_ABORT
    return -status in {getattr(signal, name, None) for name in _CRASHES}


def _note(name: str, outcome: _Undecided) -> Note:
    hint = 'if you know that they work here, load with amx="on"' if name == "AMX" else ""
    return Note(f"ggml's {name} buffers are not used, because the process that tests them {outcome.reason}", hint)
