"""First sound from the start of the process, with and without the default voice: the time until `speak -o -` writes
its first samples.

usage: python benchmarks/default_voice.py MODEL.gguf [--rounds N]

    none    --voice none: the model chooses
    first   the default voice, its cache empty: the clip is encoded
    then    the default voice again, out of the cache
    vector  --x-vector-only, out of the cache

Alternating, medians. Uses a cache folder of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

_TEXT = "The quick brown fox jumps over the lazy dog, again and again."
_HEADER_BYTES, _FRAME_BYTES = 44, 2 * 1920
_ROUND = {"none": ("--voice", "none"), "first": (), "then": (), "vector": ("--x-vector-only",)}


def seconds(model: Path, cache: Path, *options: str) -> float:
    command = [sys.executable, "-m", "qwen3tts_gguf", "speak", _TEXT, "-m", str(model), "-q", "-o", "-", "--seed", "0"]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, env={**os.environ, "XDG_CACHE_HOME": str(cache)}
    ) as process:
        assert process.stdout is not None
        n = len(process.stdout.read(_HEADER_BYTES + _FRAME_BYTES))
        taken = time.perf_counter() - started
        process.kill()
    if n < _HEADER_BYTES + _FRAME_BYTES:
        sys.exit("no sound came")
    return taken


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--rounds", type=int, default=3)
    wanted = arguments.parse_args()
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        seconds(wanted.model, cache, "--x-vector-only")  # warms the page cache
        for _ in range(wanted.rounds):
            shutil.rmtree(cache / "qwen3tts" / "voices", ignore_errors=True)
            for name, options in _ROUND.items():
                if name == "vector" and not found[name]:
                    seconds(wanted.model, cache, *options)
                found[name].append(seconds(wanted.model, cache, *options))
    for name, taken in found.items():
        print(f"{name:7} {statistics.median(taken):.2f} s   " + "  ".join(f"{each:.2f}" for each in taken))


if __name__ == "__main__":
    main()
