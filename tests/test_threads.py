"""Who computes on how many threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.cgroups import control_groups
from qwen3tts_gguf.engine import threads
from qwen3tts_gguf.engine.threads import granted_processors, shares
from qwen3tts_gguf.tts import TTS, SpeechOptions


@pytest.mark.parametrize("n_threads", range(2, 9))
def test_shares_use_all_threads_and_no_more(n_threads: int) -> None:
    found = shares(n_threads)
    assert found.side_by_side and found.all == n_threads
    assert found.language >= found.codec >= 1 and found.language + found.codec == n_threads


def test_one_thread_is_not_shared() -> None:
    assert not shares(1).side_by_side


@pytest.mark.parametrize("in_pieces", [False, True])
def test_speech_and_voices_do_not_depend_on_threads(pair: Callable[..., ConvertedPair], in_pieces: bool) -> None:
    results = []
    for n_threads in (1, 2, 3):
        tts = TTS(pair(type="q4_0").talker, n_threads=n_threads)
        options = SpeechOptions(seed=3, max_frames=7, endless=True)
        with tts.utter("Some words.", options=options) as utterance:
            samples = np.concatenate(list(utterance.pieces() if in_pieces else utterance))
        assert not utterance.ended and utterance.runaway and len(utterance.codes) == 7
        results.append((utterance.codes.tolist(), samples))
    for codes, samples in results[1:]:
        assert codes == results[0][0] and np.array_equal(samples, results[0][1])


def test_an_utterance_left_half_way_has_no_end(pair: Callable[..., ConvertedPair]) -> None:
    tts = TTS(pair(type="q4_0", ends="at-once").talker, n_threads=3)  # two frames, whatever the text is
    with tts.utter("Some words.", options=SpeechOptions(seed=3)) as utterance:
        frames = iter(utterance)
        next(frames)
        assert not utterance.ended and len(utterance.codes) == 1
        assert len(list(frames)) == 1 and utterance.ended


# -- the processors that a control group grants ------------------------------------------------------------------------


def granted(root: Path, process: str, files: dict[str, str]) -> list[int]:
    """Processors granted where /proc/self/cgroup holds `process`, and /sys/fs/cgroup the `files`."""
    (root / "process").write_text(process)
    for name, text in files.items():
        file = root / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return granted_processors(control_groups("cpu", root / "sys", root / "process"))


@pytest.mark.parametrize(
    ("process", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000\n"}, [2]),  # a container's own view
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, [4]),
        ("0::/a/b\n", {"a/b/cpu.max": "600000 100000\n", "a/cpu.max": "150000 50000\n"}, [6, 3]),
        ("0::/a\n", {"a/cpu.max": "50000 100000\n"}, [0]),
        ("4:memory:/x\n3:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1\n"}, []),
        (
            "3:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "350000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
            [3],
        ),
        (  # in a container that sees its own group alone
            "3:cpu:/docker/1234\n",
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            [2],
        ),
        ("0::/\n", {"cpu.max": "nonsense\n"}, []),
        ("0::/../..\n", {"cpu.max": "max 100000\n"}, []),
        ("", {}, []),
    ],
)
def test_a_control_groups_quota_is_counted_in_whole_processors(
    tmp_path: Path, process: str, files: dict[str, str], expected: list[int]
) -> None:
    assert granted(tmp_path, process, files) == expected


@pytest.mark.parametrize(("quotas", "expected"), [([], 8), ([6, 3], 3), ([64], 8), ([0], 1)])
def test_threads_are_as_many_as_processors_allowed_and_granted(
    monkeypatch: pytest.MonkeyPatch, quotas: list[int], expected: int
) -> None:
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "granted_processors", lambda _: quotas)
    assert threads.default_threads() == expected
