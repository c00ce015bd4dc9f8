"""Mutated pairs, loaded and made to speak a frame, each in a child process.

usage: python tests/fuzz_speaking.py TALKER MMPROJ SEED N_CASES [FIRST_CASE]

Of four cases one has a broken talker header, one a broken mmproj header, and two have weights that are no numbers. The
voice is that of a clip with a transcript, so that every net runs. Prints a line of JSON: how many spoke, how many were
refused, and what else happened: a signal (abort, segmentation fault, a hang ended by an alarm) or a Python error.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mutation
import numpy as np

from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.errors import Error

SPOKE, REFUSED, FAILED = 0, 10, 11
SECONDS = 300
MEMORY_BYTES = 4 << 30

CLIP = (0.3 * np.sin(np.arange(24_000) ** 1.3 / 400)).astype(np.float32)


def speak(talker: Path, mmproj: Path, rng: random.Random) -> None:
    tts = TTS(talker, mmproj=mmproj, n_threads=1)
    voice = Voice.from_audio(CLIP, tts, transcript="Hello there.", rate_hz=24_000)
    options = SpeechOptions(
        max_frames=2,
        seed=1,
        greedy=rng.random() < 0.2,
        sub_top_p=rng.choice((None, 0.8)),
        sub_top_k=rng.choice((None, 0)),
    )
    for chosen in (None, voice):
        with tts.utter("Hello.", chosen, options) as utterance:
            utterance.finish()
        assert np.isfinite(utterance.samples).all() and np.abs(utterance.samples).max(initial=0) <= 1


def child(talker: Path, mmproj: Path, rng: random.Random) -> int:
    """Status of a process that speaks with the pair and ends."""
    process = os.fork()
    if process == 0:
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        status = FAILED
        try:
            warnings.simplefilter("ignore")
            speak(talker, mmproj, rng)
            status = SPOKE
        except Error as error:
            status = REFUSED if "\n" not in str(error) else FAILED
            print(f"refused: {error}", file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    return os.waitpid(process, 0)[1]


@dataclass
class Report:
    """What became of the children."""

    seed: int
    spoke: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, case: int, status: int) -> None:
        if os.WIFSIGNALED(status):
            self.failures.append(f"{self.seed}:{case} {signal.Signals(os.WTERMSIG(status)).name}")
        elif os.WEXITSTATUS(status) == FAILED:
            self.failures.append(f"{self.seed}:{case} Python error")
        elif os.WEXITSTATUS(status) == SPOKE:
            self.spoke += 1
        else:
            self.refused += 1

    def print(self) -> None:
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
        print(json.dumps({**asdict(self), "largest child, MB": largest}))


def broken_file(sound: bytes, header: mutation.Header, case: int, rng: random.Random) -> bytes:
    """Half of the cases with a broken header, half with broken weights."""
    weights = sound[len(header.data) :]
    if case % 4 >= 2:
        return header.data + mutation.poisoned(weights, rng)
    data, size = mutation.broken_header(header, rng)
    whole = data + bytes(-len(data) % 32) + weights
    return whole if size == header.file_size else whole[:size]


def main() -> None:
    talker, mmproj, seed, n_cases = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    first = int(sys.argv[5]) if len(sys.argv) > 5 else 0
    halves = (talker, mmproj)
    headers, sound = [mutation.read_header(path) for path in halves], [path.read_bytes() for path in halves]
    report = Report(seed)
    with tempfile.TemporaryDirectory() as folder:
        broken = [Path(folder) / path.name for path in halves]
        for case, rng in mutation.seeds(seed, n_cases):
            if case < first:
                continue
            for path, data in zip(broken, sound, strict=True):
                path.write_bytes(data)
            half = case % 2
            broken[half].write_bytes(broken_file(sound[half], headers[half], case, rng))
            report.count(case, child(*broken, rng))
    report.print()


if __name__ == "__main__":
    main()
