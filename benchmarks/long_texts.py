"""Long texts: speech per second by number of lanes, and when the first sound of a long text comes.

    python benchmarks/long_texts.py MODEL lanes N       ten passages of 30 frames with N lanes
    python benchmarks/long_texts.py MODEL first         first sound of a short text and of one of 10,000 letters

Any weights will do: the number of frames is fixed. One figure per process, as two engines slow each other.
"""

from __future__ import annotations

import statistics
import sys
import time

from qwen3tts_gguf import TTS, SpeechOptions, read

SENTENCE = "The quick brown fox jumps over the lazy dog near the river. "
OPTIONS = SpeechOptions(seed=1, max_frames=30, retries=0, endless=True, language="english")


def lanes(model: str, n_lanes: int) -> None:
    with TTS(model, n_lanes=n_lanes) as tts:
        list(read(tts, SENTENCE, None, OPTIONS, keep_unended=True))  # warm
        started = time.perf_counter()
        passages = list(read(tts, SENTENCE * 10, None, OPTIONS, split="sentence", keep_unended=True))
        seconds = time.perf_counter() - started
        spoken = sum(len(passage.codes) for passage in passages) * 0.08
    print(f"{n_lanes} lanes: {spoken:.1f} s of speech in {seconds:.1f} s, {spoken / seconds:.2f} s per second")


def first(model: str) -> None:
    texts = {"short": SENTENCE, "long": SENTENCE * (10_000 // len(SENTENCE))}
    found: dict[str, list[float]] = {name: [] for name in texts}
    with TTS(model) as tts:
        for _ in range(9):
            for name, text in texts.items():
                started = time.perf_counter()
                with read(tts, text, None, OPTIONS) as reading:
                    next(reading.stream())
                    found[name].append(time.perf_counter() - started)
    for name, text in texts.items():
        print(f"{name}, {len(text)} letters: first sound after {statistics.median(found[name][2:]) * 1000:.0f} ms")


if __name__ == "__main__":
    if sys.argv[2] == "lanes":
        lanes(sys.argv[1], int(sys.argv[3]))
    else:
        first(sys.argv[1])
