"""Mutated files against the readers: opened or refused in one line, nothing else, whatever the bytes.

A share of the cases runs in every test run; all of them, and those that are loaded and made to speak, by `just fuzz`.
A case that fails is named by its seed and number, from which mutation.py makes it again.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mutation
import numpy as np
import pytest

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import Voice
from qwen3tts_gguf.errors import ModelFileError, VoiceError
from qwen3tts_gguf.model.files import MmprojFile, TalkerFile
from qwen3tts_gguf.model.tokenizer import Tokenizer
from qwen3tts_gguf.model.vocabulary import Vocabulary

Pair = Callable[..., ConvertedPair]

resource = pytest.importorskip("resource", reason="memory is measured as POSIX has it")
SEED = 20_260_101
FEW = 1_000
MANY = 12_000
"""Of each half of a pair, and of voices: 36,000 cases."""
SPOKEN = 400
MEMORY_BYTES = 256 << 20
SECONDS_A_CASE = 30


def open_talker(path: Path) -> None:
    talker = TalkerFile(path)
    Vocabulary(talker.file, talker.tokens)
    Tokenizer(talker.file, talker.tokens).encode("Hello.")


def is_refused(path: Path, open_file: Callable[[Path], object], refusal: type[Exception], case: int) -> bool:
    """Whether opening the file ends in the one error it may end in."""
    started = time.monotonic()
    try:
        open_file(path)
        message = None
    except refusal as error:
        message = str(error)
    except BaseException as error:
        raise AssertionError(f"case {SEED}:{case} ended in {error!r}") from error
    assert time.monotonic() - started < SECONDS_A_CASE, f"case {SEED}:{case} hung"
    assert message is None or (message.startswith(f"{path}: ") and "\n" not in message), (
        f"case {SEED}:{case}: {message}"
    )
    return message is not None


def fuzz_half(path: Path, folder: Path, open_half: Callable[[Path], object], n_cases: int) -> int:
    """How many of the cases were refused."""
    header, broken = mutation.read_header(path), folder / "broken.gguf"
    n_refused = 0
    for case, rng in mutation.seeds(SEED, n_cases):
        data, size = mutation.broken_header(header, rng)
        with broken.open("wb") as file:  # the weights are a hole: no reader looks at them
            file.write(data)
            file.truncate(size)
        n_refused += is_refused(broken, open_half, ModelFileError, case)
    return n_refused


def fuzz_voices(folder: Path, n_cases: int) -> int:
    sound, broken = folder / "sound", folder / "broken"
    random = np.random.default_rng(0)
    voice = Voice(
        speaker=random.normal(size=128).astype(np.float32),
        codes=random.integers(0, 2048, (5, 16), np.int32),
        transcript="Hi.",
        language="english",
    )
    voice.save(sound)
    data = sound.read_bytes()
    n_header = 8 + struct.unpack("<Q", data[:8])[0]
    n_refused = 0
    for case, rng in mutation.seeds(SEED, n_cases):
        broken.write_bytes(mutation.broken_bytes(data, n_header, rng))
        n_refused += is_refused(broken, Voice.load, VoiceError, case)
    return n_refused


@pytest.mark.parametrize("n_cases", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("half", ["talker", "mmproj", "voice"])
def test_a_mutated_file_is_opened_or_refused_in_one_line(pair: Pair, tmp_path: Path, half: str, n_cases: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if half == "voice":
        n_refused = fuzz_voices(tmp_path, n_cases)
    else:
        path, open_half = (pair().talker, open_talker) if half == "talker" else (pair().mmproj, MmprojFile)
        n_refused = fuzz_half(path, tmp_path, open_half, n_cases)
    print(f"{half}: {n_refused} of {n_cases} refused, seed {SEED}")
    assert n_cases / 4 < n_refused < n_cases  # neither all nor none: the mutations are fine enough to pass some checks
    unit = 1 if sys.platform == "darwin" else 1024
    grown = unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY_BYTES, f"{half}: {grown >> 20} MB more"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child process separates a crash from a refusal")
@pytest.mark.parametrize("type", ["q8_0", "q4_k_m"])
@pytest.mark.parametrize(("program", "n_cases"), [("fuzz_speaking.py", SPOKEN), ("fuzz_geometry.py", SPOKEN // 2)])
def test_a_pair_that_is_loaded_and_speaks_crashes_nothing(pair: Pair, program: str, n_cases: int, type: str) -> None:
    """Each case in a process of its own: it says a frame or refuses in one line; a signal is a failure."""
    made = pair(type=type)
    arguments = [str(made.talker), str(made.mmproj), str(SEED), str(n_cases)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), *arguments], capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout.splitlines()[-1])
    print(program, report)
    assert report["failures"] == []
    assert report["spoke"] and report["refused"]
