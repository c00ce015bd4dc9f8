"""qwen3tts as llama_pipeline.py drives llama.cpp's own pipeline: the same sentence, as often, handed out as a whole.

python benchmarks/our_pipeline.py TALKER.gguf --frames 72 --threads 2
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from qwen3tts_gguf.engine.threads import SPIN_COUNT

os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # as the command line does, before llama_cpp is imported

from qwen3tts_gguf.measure import benchmark, machine
from qwen3tts_gguf.tts import TTS, SpeechOptions
from qwen3tts_gguf.voice.voice import Voice


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("talker", type=Path)
    arguments.add_argument("--frames", type=int, default=72)
    arguments.add_argument("--threads", type=int, default=2)
    wanted = arguments.parse_args()
    started = time.perf_counter()
    tts = TTS(wanted.talker, n_threads=wanted.threads)
    load_seconds = time.perf_counter() - started
    first_seconds, work_seconds = (_spoken_in(tts, wanted.frames) for _ in range(2))
    print(
        json.dumps(
            {
                "runtime": "qwen3tts",
                "frames": wanted.frames,
                "load_seconds": load_seconds,
                "first_seconds": first_seconds,
                "first_rtf": first_seconds / (wanted.frames * 0.08),
                "work_seconds": work_seconds,
                "rtf": work_seconds / (wanted.frames * 0.08),
                "peak_rss_gb": machine.memory_gb("VmHWM", or_peak=True),
                "machine": machine.machine_facts(),
                "versions": machine.versions(),
            }
        )
    )


def _spoken_in(tts: TTS, n_frames: int) -> float:
    """Seconds for exactly n_frames, the end of speech suppressed."""
    started = time.perf_counter()
    with tts.utter(benchmark.TEXT, Voice(), SpeechOptions(seed=0, max_frames=n_frames, endless=True)) as utterance:
        utterance.finish()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
