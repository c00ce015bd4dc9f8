"""vox-tts, another engine for Qwen3-TTS on CPUs, with the fields of llama_pipeline.py.

It needs an environment of its own with `pip install vox-tts`, and a model made there:

    python -m vox build --model CHECKPOINT --dtype bf16 --quant q8 -o MODEL.tmod
    python benchmarks/vox_pipeline.py MODEL.tmod REFERENCE.wav --frames 72 --threads 2

The reference gives a speaker vector, computed before the clock starts: vox-tts has no speech without a voice.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import vox

_TEXT = "The quick brown fox jumps over the lazy dog, again and again."
_FRAME_SECONDS = 0.08


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("reference", type=Path)
    arguments.add_argument("--frames", type=int, default=72)
    arguments.add_argument("--threads", type=int, default=2)
    wanted = arguments.parse_args()
    started = time.perf_counter()
    engine = vox.Engine(wanted.model, device="cpu", threads=wanted.threads)
    load_seconds = time.perf_counter() - started
    voice = engine.clone_voice(str(wanted.reference), xvector_only=True)
    first, then = (_speak(engine, voice, wanted.frames) for _ in range(2))
    print(
        json.dumps(
            {
                "runtime": "vox-tts",
                "frames": wanted.frames,
                "load_seconds": load_seconds,
                "first_rtf": first["rtf"],
                "rtf": then["rtf"],
                "first_sound_seconds": then["first_sound"],
                "samples": then["n_samples"],
                "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            }
        )
    )


def _speak(engine: Any, voice: Any, n_frames: int) -> dict[str, float]:
    """One speech of at most n_frames; RTF is per second of the sound that came."""
    started = time.perf_counter()
    first_sound = n_samples = 0
    for chunk in engine.stream(_TEXT, voice, lang="english", seed=0, max_frames=n_frames):
        first_sound = first_sound or time.perf_counter() - started
        n_samples += len(chunk)
    seconds = time.perf_counter() - started
    return {"rtf": seconds / (n_samples / engine.sample_rate), "first_sound": first_sound, "n_samples": n_samples}


if __name__ == "__main__":
    main()
