"""The talker: the transformer that generates code 0 of each frame, run by llama.cpp.

    input embeddings [T, hidden] -> 28 layers -> norm -> hidden [hidden] of the last position -> logits [3072]

Mirrors Qwen3TTSTalkerForConditionalGeneration (qwen-tts 0.1.1, core/models/modeling_qwen3_tts.py). Its rotary embedding
has three position rows that are always equal; llama.cpp wants them, and a fourth of zeros, with each batch.

Many sequences can be open, one for each speech:

    sequence = talker.open()
    for part in sequence.start(prompt, n_shared):           # the prompt, but for its last row
        sequence.prefill(prompt[part])
    [out] = talker.step([(sequence, prompt[-1])])           # that row, and then one row per frame
    outs = talker.step([(sequence, row), (other, its_row)])

What a sequence computes is bit-identical whatever other sequences and however many threads there are: a prompt's slices
depend on the prompt alone, and rows share a product only up to the width that leaves each row's rounding alone
(widths.py). All of it is for one thread at a time.

llama.cpp's vocabulary for this model is text and codec tokens in one table, whose text part comes back as -inf logits;
here tokens of the codec count from 0, and `embed_text` / `embed_codec` look rows up in the mapped file, because the
whole table as float32 would take 0.6 to 1.2 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, ModelFileError
from ..ggml.devices import CPU, Device
from ..model.files import TalkerFile
from ..model.integrity import require_finite
from .layers import require_numbers, table_rows
from .talker_context import MAX_STREAMS, Context
from .talker_memory import Slot, TalkerMemory
from .talker_model import TOKEN_TABLE, LoadedModel, TalkerBuffers, kv_type, load_model, placements
from .widths import safe_rows

__all__ = ["Talker", "TalkerBuffers", "TalkerOutput", "TalkerSequence"]

Rows = NDArray[np.float32]

_BATCH_STEP = 4  # positions that llama.cpp multiplies at once
_SLICE_WORK = 11.4e9
"""Multiply-adds in one part of a prompt, for which other speeches wait: 24 positions of the 0.6B, 8 of the 1.7B.

Intel Xeon with AMX, q4_0 0.6B, two threads. Another's frames, 77 ms apart when alone, are by parts of 16, 24 and 40
positions up to 242, 219 and 296 ms apart, and once in a run up to 324, 316 and 305. A lone speaker's first sound in the
default voice: 0.60, 0.50, 0.49 s. Where AMX works for single rows only (102 ms alone): 270, 385 and 524 ms. Zen 4, two
threads: 40 positions take 150 ms.
"""
_LONGEST_SLICE = 64


class TalkerOutput:
    """The prediction of one position for the next: `hidden` [hidden] after the final norm, `logits` [3072] of code 0.

    Both raise ModelFileError when they are not finite, so that one lane's damage is not another's.
    """

    __slots__ = ("_hidden", "_logits", "problem")

    def __init__(self, hidden: Rows, logits: Rows, problem: ModelFileError | None = None) -> None:
        self._hidden, self._logits = hidden, logits
        self.problem = problem

    @property
    def hidden(self) -> Rows:
        return self._checked(self._hidden)

    @property
    def logits(self) -> Rows:
        return self._checked(self._logits)

    def _checked(self, values: Rows) -> Rows:
        if self.problem:
            raise self.problem
        return values


class Talker:
    """The weights, and the keys and values of all open sequences. Raises ModelFileError for weights that are NaN."""

    def __init__(
        self,
        model: TalkerFile,
        n_threads: int,
        buffers: TalkerBuffers = TalkerBuffers.REPACK,
        device: Device = CPU,
    ) -> None:
        self.config = model.config
        self._file = model.file
        self._n_open = 0
        weights = [name for name in model.file.tensors if name != TOKEN_TABLE]
        require_finite(model.file, *weights)
        for name in weights:  # from here on they are read through llama.cpp's own mapping
            model.file.release(name)
        placed = placements(model, buffers, device)
        self.width = min(safe_rows(model.file.info(name).type, placement) for name, placement in placed.items())
        """Rows of different sequences that may share a product."""
        self.slice_length = _slice_length(sum(prod(model.file.info(name).shape) for name in placed))
        """The most positions of a prompt that are computed at once."""
        # What follows is little Python, so that the caller can go on meanwhile. The thread must end with the loading:
        # AMX weights are made by a team of OpenMP threads of its own, and while there are more of those than processors
        # all teams sleep at every barrier (two threads took 42 ms per frame of the 0.6B, not 16).
        loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="talker-loader")
        loading: Future[LoadedModel] = loader.submit(load_model, model.file, model.config, placed, device)
        loader.shutdown(wait=False)
        self._loading: Future[LoadedModel] | None = loading
        self._maker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="talker-memory")
        n_batch, config, type = self.slice_length, model.config, kv_type(model)

        def new_context(n_streams: int, n_cells: int) -> Context:
            return Context(
                loading.result(),
                config,
                type,
                n_streams=n_streams,
                n_cells=n_cells,
                n_batch=n_batch,
                n_threads=n_threads,
            )

        self._memory = TalkerMemory(new_context, model.config.context_length, n_threads, self._maker)

    def wait_until_loaded(self) -> Any:
        """llama.cpp reads the weights while the caller continues -> its llama_model. Raises BackendError."""
        assert self._loading, "the talker is closed"
        return self._loading.result().pointer

    def embed_text(self, ids: NDArray[np.integer] | list[int]) -> Rows:
        """Text token ids [T] -> [T, hidden], text projection included."""
        return table_rows(self._file, TOKEN_TABLE, np.asarray(ids, np.intp))

    def embed_codec(self, tokens: NDArray[np.integer] | list[int]) -> Rows:
        """Codec tokens [T], 0..3071 -> [T, hidden]"""
        return table_rows(self._file, TOKEN_TABLE, np.asarray(tokens, np.intp) + self.config.text_vocabulary)

    def open(self) -> TalkerSequence:
        """A new sequence, which takes memory as it grows, until it is closed. Raises BackendError."""
        if self._n_open == MAX_STREAMS:
            raise BackendError(f"{MAX_STREAMS} utterances are open at once, which is more than llama.cpp allows")
        self._n_open += 1
        return TalkerSequence(self)

    def slices(self, n_positions: int, n_shared: int = 0) -> list[slice]:
        """How a prompt is cut: all of it but the last position, in parts that depend on nothing but these lengths.

        n_shared: how many leading positions other prompts are likely to have as well. As many of them as llama.cpp
        multiplies at once go in by themselves, so that they are the same wherever they come from.
        """
        last = n_positions - 1
        cut = _shared_part(n_positions, n_shared)
        starts = [*range(0, cut, self.slice_length), *range(cut, last, self.slice_length), last]
        return [slice(start, end) for start, end in pairwise(starts)]

    def step(self, rows: Sequence[tuple[TalkerSequence, Rows]]) -> list[TalkerOutput]:
        """The next position of each of some open sequences, its embedding [hidden] -> an output for each.

        Raises BackendError, before anything is computed, when one of them has reached the end of the model's context.
        """
        slots = [sequence._occupied for sequence, _ in rows]
        assert len(set(slots)) == len(slots), "a sequence is stepped twice"
        self._memory.settle()
        for slot in slots:
            self._memory.make_room(slot, 1)
        outputs: dict[int, TalkerOutput] = {}
        groups: dict[Context, list[int]] = {}
        for i in sorted(range(len(slots)), key=lambda i: slots[i].stream):
            groups.setdefault(slots[i].context, []).append(i)
        for context, group in groups.items():
            for start in range(0, len(group), self.width):
                members = group[start : start + self.width]
                context.decode(
                    np.stack([rows[i][1] for i in members]),
                    [slots[i].n_positions for i in members],
                    [slots[i].stream for i in members],
                    with_outputs=True,
                )
                for n, i in enumerate(members):
                    slots[i].n_positions += 1
                    outputs[i] = self._output(context, n)
                    slots[i].sound = outputs[i].problem is None
        return [outputs[i] for i in range(len(rows))]

    def _output(self, context: Context, row: int) -> TalkerOutput:
        hidden, logits = context.output(row)
        try:
            for values in (hidden, logits):
                require_numbers(values, self._file, "talker")
        except ModelFileError as problem:
            return TalkerOutput(hidden, logits, problem)
        return TalkerOutput(hidden, logits)

    @property
    def n_cells(self) -> int:
        """Positions that there is memory for, open or idle."""
        return self._memory.n_cells

    def use_threads(self, n_threads: int) -> None:
        """From the next positions on; results do not depend on it."""
        self._memory.use_threads(n_threads)

    def close(self) -> None:
        """Free all keys and values, then the weights. Sequences still open cannot be used any more."""
        loading, self._loading = self._loading, None
        if loading is None:
            return
        self._maker.shutdown(cancel_futures=True)
        self._memory.close()
        if not loading.exception():
            loading.result().close()


class TalkerSequence:
    """The positions of one speech so far. `close` gives their memory back."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker
        self._slot: Slot | None = None
        self._closed = False
        self.n_reused = 0
        """Positions of the prompt that were there already, from another sequence."""

    @property
    def n_positions(self) -> int:
        return self._slot.n_positions if self._slot else 0

    @property
    def _occupied(self) -> Slot:
        assert self._slot is not None and not self._closed, "the sequence is closed, or was not started"
        return self._slot

    def start(self, prompt: Rows, n_shared: int = 0) -> list[slice]:
        """prompt [T, hidden] -> the parts of it to `prefill`, in order; its last row is for `Talker.step`.

        These are `Talker.slices`, without what is there already: the first `n_shared` rows stay when a sequence is
        closed, and are copied from one that is open. Raises BackendError.
        """
        assert self._slot is None and not self._closed, "the sequence was started before"
        memory, slices = self._talker._memory, self._talker.slices(len(prompt), n_shared)
        prefix = prompt[: _shared_part(len(prompt), n_shared)].copy()
        self._slot = memory.begin(len(prompt), prefix)
        self.n_reused = self._slot.n_positions
        return [part for part in slices if part.start >= self.n_reused]

    def prefill(self, rows: Rows) -> None:
        """rows [n, hidden], the next part of a prompt. Raises BackendError."""
        slot = self._occupied
        n = len(rows)
        assert 0 < n <= self._talker.slice_length
        self._talker._memory.make_room(slot, n)
        slot.sound = False  # until there is an output
        positions = range(slot.n_positions, slot.n_positions + n)
        slot.context.decode(rows, positions, [slot.stream] * n, with_outputs=False)
        slot.n_positions += n

    def close(self) -> None:
        """Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        talker = self._talker
        talker._n_open -= 1
        if self._slot and talker._loading:
            talker._memory.leave(self._slot)


def _shared_part(n_positions: int, n_shared: int) -> int:
    return min(n_shared, n_positions - 1) // _BATCH_STEP * _BATCH_STEP


def _slice_length(multiply_adds: int) -> int:
    """multiply_adds: of one position."""
    n = int(_SLICE_WORK / multiply_adds) // _BATCH_STEP * _BATCH_STEP
    return min(max(n, _BATCH_STEP), _LONGEST_SLICE)
