"""Many sequences in one talker: other sequences, threads and memory never change what one of them computes."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.errors import BackendError, ModelFileError
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model.files import TalkerFile, find_talker
from qwen3tts_gguf.nets.talker import Talker, TalkerBuffers, TalkerOutput, TalkerSequence
from qwen3tts_gguf.nets.talker_context import CELL_STEP, Context

Pair = Callable[..., ConvertedPair]
Rows = Any

TYPES = ("q8_0", "q4_0", "q4_k_m", "q6_k", "f16", "f32")


@dataclass(frozen=True)
class Speech:
    """A prompt and the rows that follow it, by seed."""

    n_prompt: int
    n_frames: int
    seed: int

    def rows(self, talker: Talker) -> Rows:
        rng = np.random.default_rng(self.seed)
        return rng.standard_normal((self.n_prompt + self.n_frames, talker.config.hidden)).astype(np.float32)


# Below and past 256, where keys are padded further; past 512, where a sequence moves to a larger context; past 600.
SPEECHES = [
    Speech(n_prompt, n_frames, seed)
    for seed, (n_prompt, n_frames) in enumerate([(230, 40), (5, 30), (490, 40), (3, 9), (577, 40), (90, 20), (64, 25)])
]


def began(talker: Talker, prompt: Rows, n_shared: int = 0) -> TalkerSequence:
    """A sequence with all of a prompt but its last row."""
    sequence = talker.open()
    for part in sequence.start(prompt, n_shared):
        sequence.prefill(prompt[part])
    return sequence


def alone(talker: Talker, speech: Speech) -> list[TalkerOutput]:
    """The outputs at the last row of the prompt and at all that follow."""
    rows, n = speech.rows(talker), speech.n_prompt
    sequence = began(talker, rows[:n])
    outputs = [talker.step([(sequence, row)])[0] for row in rows[n - 1 :]]
    sequence.close()
    return outputs


def in_company(talker: Talker, speeches: list[Speech], seed: int) -> tuple[list[list[TalkerOutput]], int]:
    """The same of several that join, wait, change places and leave at random; and the most that shared a step."""
    rng = np.random.default_rng(seed)
    outputs: list[list[TalkerOutput]] = [[] for _ in speeches]
    to_come, n_most = list(range(len(speeches))), 0
    prompts: dict[int, tuple[TalkerSequence, Rows, list[slice]]] = {}
    lanes: dict[int, TalkerSequence] = {}
    while to_come or prompts or lanes:
        talker.use_threads(int(rng.integers(1, 4)))
        if to_come and rng.random() < 0.3:
            i = to_come.pop(0)
            prompt, sequence = speeches[i].rows(talker)[: speeches[i].n_prompt], talker.open()
            prompts[i] = sequence, prompt, sequence.start(prompt)
        for i, (sequence, prompt, parts) in list(prompts.items()):
            if parts:
                sequence.prefill(prompt[parts.pop(0)])
            else:
                lanes[i] = sequence
                del prompts[i]
        stepped = [i for i in rng.permutation(list(lanes)) if rng.random() < 0.9] if lanes else []
        rows = [speeches[i].rows(talker)[speeches[i].n_prompt - 1 + len(outputs[i])] for i in stepped]
        for i, out in zip(
            stepped, talker.step([(lanes[i], row) for i, row in zip(stepped, rows, strict=True)]), strict=True
        ):
            outputs[i].append(out)
            if len(outputs[i]) == speeches[i].n_frames + 1:
                lanes.pop(i).close()
        n_most = max(n_most, len(stepped))
    return outputs, n_most


def equal(found: list[TalkerOutput], expected: list[TalkerOutput]) -> bool:
    """Bit for bit."""
    return len(found) == len(expected) and all(
        np.array_equal(a.hidden, b.hidden) and np.array_equal(a.logits, b.logits)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.fixture(scope="module")
def nano() -> Iterator[Talker]:
    talker = Talker(TalkerFile(find_talker(Path("nano"))), 1)
    yield talker
    talker.close()


@pytest.mark.parametrize(
    ("type", "buffers"),
    [*((type, TalkerBuffers.REPACK) for type in TYPES), *((type, TalkerBuffers.PLAIN) for type in ("q4_0", "q4_k_m"))],
)
def test_other_lanes_and_threads_change_no_bit(pair: Pair, type: str, buffers: TalkerBuffers) -> None:
    talker = Talker(TalkerFile(pair(type).talker), 1, buffers)
    expected = [alone(talker, speech) for speech in SPEECHES]
    found, n_most = in_company(talker, SPEECHES, seed=0)
    assert [equal(a, b) for a, b in zip(found, expected, strict=True)] == [True] * len(SPEECHES)
    assert n_most >= 4
    talker.close()


def test_other_speeches_change_no_bit_with_trained_weights(nano: Talker) -> None:
    expected = [alone(nano, speech) for speech in SPEECHES]
    for seed in range(2):
        found, _ = in_company(nano, SPEECHES, seed)
        assert [equal(a, b) for a, b in zip(found, expected, strict=True)] == [True] * len(SPEECHES)


# -- what a voice's prompts begin with ---------------------------------------------------------------------------------


def prompts(talker: Talker, n_shared: int, *lengths: int) -> list[Rows]:
    """Prompts that begin alike."""
    shared = Speech(n_shared, 0, seed=99).rows(talker)
    return [np.concatenate([shared, Speech(n - n_shared, 0, seed=n).rows(talker)]) for n in lengths]


def output(talker: Talker, sequence: TalkerSequence, prompt: Rows) -> TalkerOutput:
    return talker.step([(sequence, prompt[-1])])[0]


def test_the_shared_beginning_stays_when_a_sequence_is_closed(nano: Talker) -> None:
    first, second = prompts(nano, 90, 150, 120)
    expected = output(nano, fresh := began(nano, second, 90), second)
    fresh.close()
    other = began(nano, Speech(100, 0, seed=1).rows(nano), 50)  # takes its place
    output(nano, other, Speech(100, 0, seed=1).rows(nano))
    other.close()
    before = began(nano, first, 90)
    assert before.n_reused == 0
    output(nano, before, first)
    before.close()
    after = began(nano, second, 90)
    assert after.n_reused == 88
    assert equal([output(nano, after, second)], [expected])
    after.close()


def test_the_shared_beginning_is_copied_from_a_sequence_that_is_open(nano: Talker) -> None:
    first, second = prompts(nano, 90, 150, 120)
    other = Speech(30, 0, seed=7).rows(nano)
    began(nano, other).close()
    expected = output(nano, fresh := began(nano, second, 90), second)
    fresh.close()
    began(nano, other).close()
    before = began(nano, first, 90)
    for row in Speech(50, 0, seed=1).rows(nano):
        nano.step([(before, row)])
    after = began(nano, second, 90)
    assert after.n_reused == 88
    assert equal([output(nano, after, second)], [expected])
    before.close()
    after.close()


def test_a_closed_context_frees_no_other_when_it_is_finalized(nano: Talker) -> None:
    """llama.cpp gives the address of a freed context to the next one."""
    assert nano._loading
    model = nano._loading.result()

    def context() -> Context:
        return Context(model, nano.config, GgmlType.F16, n_streams=1, n_cells=CELL_STEP, n_batch=4, n_threads=1)

    known = len(model._contexts)
    closed = [context() for _ in range(8)]
    for each in closed:
        each.close()
    living = [context() for _ in range(8)]
    del closed, each
    gc.collect()
    assert len(model._contexts) == known + 8
    for each in living:
        each.forget(0)
        each.close()
    assert len(model._contexts) == known


def test_another_beginning_is_computed(nano: Talker) -> None:
    first, _ = prompts(nano, 90, 150, 120)
    before = began(nano, first, 90)
    output(nano, before, first)
    different = first.copy()
    different[0, 0] += 1
    for n_shared, prompt in ((90, different), (60, first), (0, first)):
        after = began(nano, prompt, n_shared)
        assert after.n_reused == 0
        after.close()
    before.close()


# -- memory ------------------------------------------------------------------------------------------------------------


def wait_for_orders(talker: Talker) -> None:
    """Until the contexts that were ordered are made."""
    talker._maker.submit(int).result()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="from /proc")
def test_a_burst_of_long_sequences_leaves_no_memory_behind(nano: Talker) -> None:
    prompt = Speech(600, 0, seed=1).rows(nano)

    def burst() -> int:
        """The memory while 32 sequences are open."""
        sequences = [began(nano, prompt) for _ in range(32)]
        nano.step([(sequence, prompt[-1]) for sequence in sequences])
        assert nano.n_cells >= 32 * 600
        most = resident_bytes()
        for sequence in sequences:
            sequence.close()
        assert nano.n_cells <= 1024
        return most

    burst()  # malloc keeps some of what the first one frees
    before = resident_bytes()
    assert burst() > 1.1 * before
    assert resident_bytes() < 1.1 * before


def test_memory_follows_the_sequences_that_are_open(nano: Talker) -> None:
    prompt = Speech(10, 0, seed=1).rows(nano)
    sequences = [began(nano, prompt) for _ in range(8)]
    for _ in range(20):  # contexts of one stream each, until one for all of them is there
        nano.step([(sequence, prompt[-1]) for sequence in sequences])
        wait_for_orders(nano)
    assert nano.n_cells == 8 * 512
    for sequence in sequences[1:]:
        sequence.close()
    for _ in range(20):
        nano.step([(sequences[0], prompt[-1])])
        wait_for_orders(nano)
    assert nano.n_cells == 512
    sequences[0].close()


def test_what_is_kept_of_a_large_burst_is_the_last_beginning(nano: Talker) -> None:
    [prompt] = prompts(nano, 90, 700)
    sequences = [began(nano, prompt, 90) for _ in range(3)]
    for sequence in sequences:
        output(nano, sequence, prompt)
    for sequence in sequences:
        sequence.close()
    assert nano.n_cells == 512
    again = began(nano, prompt[:200], 90)
    assert again.n_reused == 88
    again.close()


def test_a_damaged_lane_harms_no_other(nano: Talker) -> None:
    first, second = SPEECHES[1], SPEECHES[5]
    expected = alone(nano, first), alone(nano, second)
    broken, sequence = began(nano, second.rows(nano)[:80]), began(nano, first.rows(nano)[:5])
    bad, good = nano.step([(broken, np.full(nano.config.hidden, np.nan, np.float32)), (sequence, first.rows(nano)[4])])
    assert equal([good], expected[0][:1])
    for part in ("hidden", "logits"):
        with pytest.raises(ModelFileError, match="weights are damaged"):
            getattr(bad, part)
    broken.close()
    other = began(nano, second.rows(nano)[: second.n_prompt])  # not where the NaN are
    assert equal(nano.step([(other, second.rows(nano)[second.n_prompt - 1])]), expected[1][:1])
    other.close()
    sequence.close()
    assert equal(alone(nano, second), expected[1])


def test_a_prompt_given_up_on_harms_no_other(nano: Talker) -> None:
    expected = alone(nano, SPEECHES[5])
    sequence = nano.open()
    sequence.start(SPEECHES[0].rows(nano))
    sequence.prefill(np.full((40, nano.config.hidden), np.nan, np.float32))
    sequence.close()
    assert equal(alone(nano, SPEECHES[5]), expected)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_end_of_the_context_is_an_error_of_one_sequence(pair: Pair) -> None:
    file = TalkerFile(pair("q8_0").talker)
    file.config = replace(file.config, context_length=600)
    talker = Talker(file, 1)
    rows = Speech(598, 8, seed=3).rows(talker)
    long, short = began(talker, rows[:598]), began(talker, rows[:5])
    for row in rows[597:600]:
        talker.step([(long, row)])
    assert long.n_positions == 600
    with pytest.raises(BackendError, match="context of 600 positions"):
        talker.step([(short, rows[4]), (long, rows[600])])
    assert short.n_positions == 4  # nothing was computed
    with pytest.raises(BackendError, match="context of 600 positions"):
        long.prefill(rows[600:602])
    talker.step([(short, rows[4])])
    for sequence in (long, short):
        sequence.close()
    talker.close()


def test_llama_cpp_allows_256_sequences(nano: Talker) -> None:
    sequences = [nano.open() for _ in range(256)]
    with pytest.raises(BackendError, match="256 utterances"):
        nano.open()
    sequences.pop().close()
    sequences.append(nano.open())
    for sequence in sequences:
        sequence.close()
        sequence.close()  # twice is once


def test_a_talker_closes_with_sequences_open(pair: Pair) -> None:
    talker = Talker(TalkerFile(pair("q8_0").talker), 1)
    sequence = began(talker, SPEECHES[1].rows(talker))
    talker.close()
    talker.close()
    sequence.close()


def test_talkers_dropped_while_they_load_block_nothing(pair: Pair) -> None:
    program = """
import gc, sys
from pathlib import Path
from qwen3tts_gguf.model.files import TalkerFile
from qwen3tts_gguf.nets.talker import Talker

gc.set_threshold(1)  # finalizes wherever Python code runs, also on the talker's own threads
for i in range(12):
    talker = Talker(TalkerFile(Path(sys.argv[1])), 1)
    if i % 3:
        sequence = talker.open()
        sequence.start(talker.embed_codec([1, 2, 3]))
        talker.cycle = talker, sequence
    if i % 2:
        talker.wait_until_loaded()
print("done")
"""
    command = [sys.executable, "-c", program, str(pair("q8_0").talker)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
