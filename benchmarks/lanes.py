"""Several speeches at once: what each costs, and how soon the first sound of a late one comes.

    python benchmarks/lanes.py TALKER.gguf [TALKER.gguf ...] --lanes 1 2 4 8 --frames 48 --threads 2 --out lanes.json

Each model is loaded once, in a process of its own, with as many lanes as the largest number asked for, and speaks 1, 2,
4 .. endless speeches at once, each read as it is made. Then one speech joins others half of their frames in, so that
with it there are as many. Printed per number of lanes: milliseconds of each net per step, seconds of speech made per
second without the prompts, the factor over one lane, and the first sound of the speech that joined. Rounds alternate
between the numbers of lanes, `--runs` times; medians are printed.

(One model per process: two engines have more OpenMP threads than the machine has processors, and libgomp then lets all
of them sleep where they would spin: engine/codec_stage.py.)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from qwen3tts_gguf.engine.threads import SPIN_COUNT

os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # before anything imports llama_cpp

from qwen3tts_gguf import TTS, SpeechOptions
from qwen3tts_gguf.measure.benchmark import TEXT, plain_voice
from qwen3tts_gguf.measure.machine import machine_facts, memory_gb, versions

_WARM_UP = 4
_FRAME_SECONDS = 0.08


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None, epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    arguments.add_argument("talkers", type=Path, nargs="+", metavar="TALKER")
    arguments.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments.add_argument("--frames", type=int, default=48, help="of each speech (48)")
    arguments.add_argument("--threads", type=int, default=2, help="(2)")
    arguments.add_argument("--runs", type=int, default=3, help="(3)")
    arguments.add_argument("--out", type=Path, metavar="FILE.json")
    wanted = arguments.parse_args()
    if len(wanted.talkers) > 1:
        options = ["--lanes", *map(str, wanted.lanes), "--frames", str(wanted.frames), "--runs", str(wanted.runs)]
        options += ["--threads", str(wanted.threads)]
        for talker in wanted.talkers:
            out = [] if wanted.out is None else ["--out", str(wanted.out.with_stem(f"{wanted.out.stem}-{talker.stem}"))]
            subprocess.run([sys.executable, __file__, str(talker), *options, *out], check=True)
        return
    (talker,) = wanted.talkers
    runs: dict[int, list[dict[str, float]]] = {n: [] for n in wanted.lanes}
    with TTS(talker, n_threads=wanted.threads, n_lanes=max(wanted.lanes)) as tts:
        for n in wanted.lanes:
            _together(tts, n, _WARM_UP)
        for _ in range(wanted.runs):
            for n in wanted.lanes:
                runs[n].append({**_together(tts, n, wanted.frames), "first_ms": _joining(tts, n, wanted.frames)})
        plan = tts.plan.entries()
    medians = {n: {key: statistics.median(run[key] for run in runs[n]) for key in runs[n][0]} for n in runs}
    _print(talker, medians)
    facts = {"machine": machine_facts(), "versions": versions(), "plan": plan, "frames": wanted.frames}
    peak = memory_gb("VmHWM", or_peak=True)
    print(f"{facts['machine']['cpu']}, {wanted.threads} threads, {wanted.frames} frames a speech, peak {peak:.2f} GB")
    if wanted.out:
        wanted.out.write_text(json.dumps({**facts, "talker": talker.name, "lanes": medians}, indent=1) + "\n", "utf-8")


def _together(tts: TTS, n: int, n_frames: int) -> dict[str, float]:
    """n speeches of so many frames, started at the same time."""
    options = [SpeechOptions(seed=seed, max_frames=n_frames, endless=True) for seed in range(n)]
    utterances = [tts.utter(TEXT, plain_voice(tts), each) for each in options]
    readers = [threading.Thread(target=_read, args=(utterance,)) for utterance in utterances]
    started = time.perf_counter()
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = time.perf_counter() - started
    seconds -= sum(utterance.timings.prompt for utterance in utterances)  # prompts are not what lanes share
    parts: dict[str, float] = {}
    for name in ("talker", "predictor", "codec"):
        parts[f"{name}_ms"] = 1000 * statistics.median(
            each for utterance in utterances for each in getattr(utterance.timings, name)[1:]
        )
    return {**parts, "speech_per_second": n * n_frames * _FRAME_SECONDS / seconds}


def _joining(tts: TTS, n: int, n_frames: int) -> float:
    """Milliseconds to the first sound of a speech that joins n - 1 others."""
    options = [SpeechOptions(seed=seed, max_frames=n_frames, endless=True) for seed in range(n - 1)]
    others = [tts.utter(TEXT, plain_voice(tts), each) for each in options]
    half = threading.Barrier(n)
    readers = [threading.Thread(target=_read, args=(other, n_frames // 2, half)) for other in others]
    for reader in readers:
        reader.start()
    half.wait()
    with tts.utter("Join in.", plain_voice(tts), SpeechOptions(seed=99, max_frames=2, endless=True)) as late:
        started = time.perf_counter()
        next(iter(late))
        milliseconds = 1000 * (time.perf_counter() - started)
    for reader in readers:
        reader.join()
    return milliseconds


def _read(utterance: Any, n_before: int = 0, then: threading.Barrier | None = None) -> None:
    for i, _ in enumerate(utterance):
        if then is not None and i == n_before:
            then.wait()


def _print(talker: Path, medians: dict[int, dict[str, float]]) -> None:
    print(f"\n{talker.name}")
    print("lanes   ms per step: talker  predictor  codec   speech s/s   times one lane   first sound, joining late")
    one = medians[min(medians)]["speech_per_second"]
    for n, run in medians.items():
        print(
            f"{n:5}   {run['talker_ms']:19.1f}  {run['predictor_ms']:9.1f}  {run['codec_ms']:5.1f}"
            f"   {run['speech_per_second']:10.2f}   {run['speech_per_second'] / one:14.2f}   {run['first_ms']:.0f} ms"
        )


if __name__ == "__main__":
    sys.exit(main())
