"""Who computes on how many threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.engine.threads import shares
from qwen3tts_gguf.tts import TTS, SpeechOptions


@pytest.mark.parametrize("n_threads", range(2, 9))
def test_shares_use_all_threads_and_no_more(n_threads: int) -> None:
    found = shares(n_threads)
    assert found.side_by_side and found.all == n_threads
    assert found.language >= found.codec >= 1 and found.language + found.codec == n_threads


def test_one_thread_is_not_shared() -> None:
    assert not shares(1).side_by_side


@pytest.mark.parametrize("in_pieces", [False, True])
def test_what_is_said_and_heard_does_not_depend_on_threads(pair: Callable[..., ConvertedPair], in_pieces: bool) -> None:
    heard = []
    for n_threads in (1, 2, 3):
        tts = TTS(pair(type="q4_0").talker, n_threads=n_threads)
        options = SpeechOptions(seed=3, max_frames=7, endless=True)
        with tts.utter("Some words.", options=options) as utterance:
            samples = np.concatenate(list(utterance.pieces() if in_pieces else utterance))
        assert not utterance.ended and utterance.runaway and len(utterance.codes) == 7
        heard.append((utterance.codes.tolist(), samples))
    for codes, samples in heard[1:]:
        assert codes == heard[0][0] and np.array_equal(samples, heard[0][1])


def test_an_utterance_left_half_way_has_no_end(pair: Callable[..., ConvertedPair]) -> None:
    tts = TTS(pair(type="q4_0", ends="at-once").talker, n_threads=3)  # two frames, whatever the text is
    with tts.utter("Some words.", options=SpeechOptions(seed=3)) as utterance:
        frames = iter(utterance)
        next(frames)
        assert not utterance.ended and len(utterance.codes) == 1
        assert len(list(frames)) == 1 and utterance.ended
