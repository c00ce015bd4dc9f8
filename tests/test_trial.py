"""Trials of buffer types: children that work, crash, lie, hang or never start, and what is remembered of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_gguf.ggml import trial, trial_products
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.ggml.machine import Machine, this_machine
from qwen3tts_gguf.ggml.trial import Trials, Verdict, child_command, try_buffer_types
from qwen3tts_gguf.ggml.trial_products import SEVERAL_ROWS, SINGLE_ROWS, STARTED, WRONG
from qwen3tts_gguf.ggml.types import GgmlType

MACHINE = Machine("A CPU", "intel", frozenset({"avx2"}), frozenset({"AVX2"}), ("AMX",))
NO_CHILD = ["/absent/python"]

Try = Callable[..., Trials]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No type is off because of what an earlier test could not find out."""
    monkeypatch.setattr(trial, "_undecided", {})


def program(*statements: str) -> list[str]:
    """A command that starts a child of these statements, after `say(line)` is there."""
    code = "import os, signal, sys, time\nsay = lambda line: print(line, flush=True)\n" + "\n".join(statements)
    return [sys.executable, "-I", "-S", "-c", code]


def say(*lines: str) -> list[str]:
    return [f"say({line!r})" for line in lines]


def crash(name: str) -> str:
    return f"os.kill(os.getpid(), signal.{name})"


WORKS = program(*say(STARTED, SINGLE_ROWS, SEVERAL_ROWS))
HANGS = program(*say(STARTED), "time.sleep(600)")


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        (WORKS, Verdict.WORKS),
        (program(*say(STARTED, SINGLE_ROWS, WRONG)), Verdict.ROWS),
        (program(*say(STARTED, WRONG)), Verdict.OFF),
        pytest.param(
            program(*say(STARTED, SINGLE_ROWS), crash("SIGSEGV")),
            Verdict.ROWS,
            marks=pytest.mark.skipif(sys.platform == "win32", reason="signals"),
        ),
        pytest.param(
            program(*say(STARTED), crash("SIGILL")),
            Verdict.OFF,
            marks=pytest.mark.skipif(sys.platform == "win32", reason="signals"),
        ),
        (program(*say(STARTED, SINGLE_ROWS), "os.abort()"), Verdict.ROWS),
        (program(*say(STARTED, SINGLE_ROWS, SEVERAL_ROWS), "os.abort()"), Verdict.ROWS),
    ],
)
def test_a_child_that_crashes_or_lies_decides_how_far_it_came(
    tmp_path: Path, command: list[str], verdict: Verdict
) -> None:
    found = try_buffer_types(MACHINE, cache=tmp_path, command=command)
    assert found == Trials({"AMX": verdict})
    assert try_buffer_types(MACHINE, cache=tmp_path, command=NO_CHILD) == found  # remembered


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (NO_CHILD, "could not be started"),
        ([], "could not be started"),
        (program("say('Welcome to the application!')"), "could not be started"),
        (program(*say(STARTED), "sys.exit(3)"), "ended with status 3"),
        (program(*say(STARTED, SINGLE_ROWS), "raise MemoryError"), "ended with status 1"),
    ],
)
def test_a_child_that_fails_otherwise_is_no_verdict_and_leaves_a_note(
    tmp_path: Path, command: list[str], reason: str
) -> None:
    found = try_buffer_types(MACHINE, cache=tmp_path, command=command)
    assert found.verdicts == {"AMX": Verdict.OFF}
    assert len(found.notes) == 1 and reason in found.notes[0].message and 'amx="on"' in found.notes[0].hint
    assert not list(tmp_path.iterdir())


def test_without_a_home_nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system names no folder, "~" stays as it is, and would become a folder of that name."""
    import platformdirs

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name, **_: f"~/.cache/{name}")
    assert try_buffer_types(MACHINE, command=WORKS).verdicts == {"AMX": Verdict.WORKS}
    assert not list(tmp_path.iterdir())
    assert try_buffer_types(MACHINE, command=NO_CHILD).verdicts == {"AMX": Verdict.OFF}  # tried again


def test_a_child_that_hangs_is_tried_twice_and_then_its_type_stays_off_in_this_process(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = program(f"open({str(started)!r}, 'a').write('x')", *say(STARTED), "time.sleep(600)")
    found = try_buffer_types(MACHINE, cache=tmp_path / "cache", command=command, seconds=2)
    assert started.read_text() == "xx"
    assert found.verdicts == {"AMX": Verdict.OFF} and "did not end within 2 s" in found.notes[0].message
    assert try_buffer_types(MACHINE, cache=tmp_path / "cache", command=WORKS) == found
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_that_was_killed_is_tried_again(tmp_path: Path) -> None:
    first = tmp_path / "first"
    kill = f"if not os.path.exists({str(first)!r}): open({str(first)!r}, 'w'); os.kill(os.getpid(), signal.SIGKILL)"
    command = program(*say(STARTED), kill, *say(SINGLE_ROWS, SEVERAL_ROWS))
    assert try_buffer_types(MACHINE, cache=tmp_path, command=command) == Trials({"AMX": Verdict.WORKS})


def test_every_type_has_a_verdict_of_its_own(tmp_path: Path) -> None:
    machine = replace(MACHINE, buffer_types=("AMX", "CPU_REPACK"))
    command = program(*say(STARTED, SINGLE_ROWS), "if sys.argv[1] == 'AMX': os.abort()", *say(SEVERAL_ROWS))
    found = try_buffer_types(machine, cache=tmp_path, command=command)
    assert found == Trials({"AMX": Verdict.ROWS, "CPU_REPACK": Verdict.WORKS})


def test_a_forced_verdict_is_neither_tried_nor_remembered(tmp_path: Path) -> None:
    found = try_buffer_types(MACHINE, {"AMX": Verdict.WORKS}, cache=tmp_path, command=NO_CHILD)
    assert found == Trials({"AMX": Verdict.WORKS})
    assert not list(tmp_path.iterdir())


def test_a_type_that_is_not_offered_cannot_be_forced(tmp_path: Path) -> None:
    machine = replace(MACHINE, buffer_types=())
    assert try_buffer_types(machine, {"AMX": Verdict.WORKS}, cache=tmp_path, command=NO_CHILD) == Trials({})


# -- what is remembered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"verdict": "works"}', '{"key": [], "verdict": "works"}'])
def test_a_damaged_memory_is_made_again(tmp_path: Path, content: str) -> None:
    try_buffer_types(MACHINE, cache=tmp_path, command=WORKS)
    [remembered] = tmp_path.iterdir()
    whole = remembered.read_text()
    remembered.write_text(content)
    assert try_buffer_types(MACHINE, cache=tmp_path, command=WORKS) == Trials({"AMX": Verdict.WORKS})
    assert remembered.read_text() == whole


def test_a_verdict_that_does_not_exist_is_found_out_again(tmp_path: Path) -> None:
    try_buffer_types(MACHINE, cache=tmp_path, command=WORKS)
    [remembered] = tmp_path.iterdir()
    remembered.write_text(json.dumps(json.loads(remembered.read_text()) | {"verdict": "splendid"}))
    assert try_buffer_types(MACHINE, cache=tmp_path, command=WORKS) == Trials({"AMX": Verdict.WORKS})


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert try_buffer_types(MACHINE, cache=file / "x", command=WORKS) == Trials({"AMX": Verdict.WORKS})


@pytest.mark.parametrize(
    "other",
    [
        replace(MACHINE, name="Another CPU"),
        replace(MACHINE, features=frozenset({"avx2", "amx_int8"})),
    ],
)
def test_another_cpu_is_tried_again(tmp_path: Path, other: Machine) -> None:
    try_buffer_types(MACHINE, cache=tmp_path, command=WORKS)
    lies = program(*say(STARTED, WRONG))
    assert try_buffer_types(other, cache=tmp_path, command=lies) == Trials({"AMX": Verdict.OFF})


def test_another_library_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, cache = tmp_path / "libggml-cpu.so", tmp_path / "cache"
    library.write_bytes(b"one")
    monkeypatch.setattr(trial, "cpu_library", library)
    try_buffer_types(MACHINE, cache=cache, command=WORKS)
    os.utime(library, (1, 1))
    lies = program(*say(STARTED, WRONG))
    assert try_buffer_types(MACHINE, cache=cache, command=lies) == Trials({"AMX": Verdict.OFF})


def test_without_a_library_to_name_nothing_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "cpu_library", None)
    assert try_buffer_types(MACHINE, cache=tmp_path, command=WORKS) == Trials({"AMX": Verdict.WORKS})
    assert not list(tmp_path.iterdir())


# -- the child ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimized", [False, True])
def test_the_real_child_decides_about_every_type_and_shows_nothing(tmp_path: Path, optimized: bool) -> None:
    code = """
import sys
from pathlib import Path
from qwen3tts_gguf.ggml.machine import this_machine
from qwen3tts_gguf.ggml.trial import try_buffer_types
found = try_buffer_types(this_machine(), cache=Path(sys.argv[1]), seconds=120)
print(sorted(found.verdicts) == sorted(this_machine().buffer_types), len(found.notes))
"""
    command = [sys.executable, *(["-O"] if optimized else []), "-c", code, str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.stdout.split(), done.stderr) == (["True", "0"], "")
    assert len(list((tmp_path / "cache").iterdir())) == len(this_machine().buffer_types)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]  # no core dump


def test_the_child_imports_nothing_from_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("numpy.py").write_text("raise SystemExit")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = try_buffer_types(replace(MACHINE, buffer_types=("NONE",)), cache=tmp_path / "cache", seconds=120)
    assert found == Trials({"NONE": Verdict.WORKS})  # nothing to multiply with


def test_a_frozen_application_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert child_command() == []


@pytest.mark.parametrize("name", ["uwsgi", "blender", ""])
def test_another_program_with_python_inside_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name:
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / name) if name else None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nowhere"))
    assert child_command() == []


def test_wrong_products_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    products = trial_products._products_are_right
    placement = this_machine().buffer_types[-1] if this_machine().buffer_types else pytest.skip("no extra buffers")
    types = [type for type in GgmlType if type is not GgmlType.I32]
    assert all(products(placement, type, (1,)) for type in types)
    get = Graph.get
    for wrong in (lambda y: y * 1.1, lambda y: y[:, ::-1], lambda y: np.full_like(y, np.nan)):
        monkeypatch.setattr(Graph, "get", lambda self, x, wrong=wrong: wrong(get(self, x)))
        assert not all(products(placement, type, (1,)) for type in types)
