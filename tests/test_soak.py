"""A thousand utterances in one process, and lanes; `just soak` prints the figures of docs/RELIABILITY.md."""

from __future__ import annotations

import random
import threading

import numpy as np
import psutil
import pytest
from evaluate import clips

from qwen3tts_gguf import TTS, SpeechOptions
from qwen3tts_gguf.model import nano

pytestmark = pytest.mark.soak

_WARM_UP, _UTTERANCES = 50, 1000
_MOST_GROWTH_MB = 8
_TEXTS = ("Seven.", "Three nine.", "Open.", "Wait ten minutes.")


def test_a_thousand_utterances_leave_memory_threads_and_files_as_they_were() -> None:
    process = psutil.Process()

    def state() -> tuple[float, int, int]:
        return process.memory_info().rss / 1e6, process.num_threads(), process.num_fds()

    tts = TTS(nano.NAME, n_threads=1)
    voices = [None, *(voice for clip in clips(tts).values() for voice in (clip, clip.without_codes()))]
    seen, frames = [], 0
    for i in range(_UTTERANCES):
        if i >= _WARM_UP and i % 50 == 0:
            seen.append(state())
        with tts.utter(_TEXTS[i % len(_TEXTS)], voices[i % len(voices)], SpeechOptions(seed=i)) as utterance:
            for samples in utterance:
                assert np.isfinite(samples).all()
        frames += len(utterance.codes)
    seen.append(state())
    megabytes, threads, files = zip(*seen, strict=True)
    print(f"\n{_UTTERANCES} utterances, {frames} frames: RSS {megabytes[0]:.1f} MB after {_WARM_UP}, ", end="")
    print(f"{megabytes[-1]:.1f} MB at the end; threads {threads[0]}, {threads[-1]}; files {files[0]}, {files[-1]}")
    assert megabytes[-1] - megabytes[0] <= _MOST_GROWTH_MB
    assert len(set(threads)) == 1
    assert len(set(files)) == 1


def test_three_hundred_utterances_on_four_lanes_leave_memory_threads_and_files_as_they_were() -> None:
    """Four readers; every tenth utterance is cancelled somewhere."""
    process = psutil.Process()
    seen: list[tuple[float, int, int]] = []
    with TTS(nano.NAME, n_threads=2, n_lanes=4) as tts:
        voices = [None, *clips(tts).values()]

        def read(reader: int, n: int) -> None:
            rng = random.Random(reader)
            for i in range(n):
                voice = voices[rng.randrange(len(voices))]
                with tts.utter(_TEXTS[i % len(_TEXTS)], voice, SpeechOptions(seed=1000 * reader + i)) as utterance:
                    for frame, samples in enumerate(utterance):
                        assert np.isfinite(samples).all()
                        if i % 10 == 9 and frame == rng.randrange(1, 5):
                            utterance.cancel()

        for _ in range(6):  # the first rounds warm up
            readers = [threading.Thread(target=read, args=(reader, 15)) for reader in range(4)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            seen.append((process.memory_info().rss / 1e6, process.num_threads(), process.num_fds()))
    megabytes, threads, files = zip(*seen[1:], strict=True)
    print(f"\n360 utterances on four lanes: RSS {megabytes[0]:.1f} MB after 120, ", end="")
    print(f"{megabytes[-1]:.1f} MB at the end; ", end="")
    print(f"threads {threads[0]}, {threads[-1]}; files {files[0]}, {files[-1]}")
    assert megabytes[-1] - megabytes[0] <= 0.1 * megabytes[0]
    assert len(set(threads)) == 1 and len(set(files)) == 1
