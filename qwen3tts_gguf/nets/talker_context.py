"""One llama_context: a table of keys and values, a row of cells for each stream.

A stream holds one sequence, whose position p lies in cell p. Streams share the weights of a pass and nothing else
(`kv_unified` is off). Flash attention is off: from position 256 on it splits one row's keys by thread
(ggml-cpu/ops.cpp, `use_split_kv_path`), so that rounding would depend on the number of threads and on other
sequences. With both off, longer neighbours only add keys that are masked, and sums over those only add zeros.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from ..ggml.device import CPU_HINT, NO_ROOM_HINT
from ..ggml.types import GgmlType
from ..model.schema import CODEC_VOCABULARY, TalkerConfig
from .talker_model import LoadedModel

__all__ = ["CELL_STEP", "MAX_STREAMS", "Context", "copy_sequence", "room_for_copies"]

CELL_STEP = 256
"""llama.cpp rounds the cells of a stream up to a multiple of this, and the keys it looks at."""
_N_POSITION_ROWS = 4  # three that are always equal, and one of zeros
MAX_STREAMS = 256  # LLAMA_MAX_SEQ
_WORD = 4
_SAVED_CELL_BYTES, _SAVED_BYTES = 32, 1 << 16  # more than llama.cpp saves with each cell, and with all of them


class Context:
    """Raises BackendError where there is no memory for it.

    type: of keys and values. n_batch: the most positions in one pass, of one sequence or of several.
    """

    def __init__(
        self,
        model: LoadedModel,
        config: TalkerConfig,
        type: GgmlType,
        *,
        n_streams: int,
        n_cells: int,
        n_batch: int,
        n_threads: int,
    ) -> None:
        assert n_cells % CELL_STEP == 0 and n_streams <= MAX_STREAMS
        self.n_streams, self.n_cells = n_streams, n_cells
        self.cell_bytes = 2 * config.n_layers * type.row_bytes(config.n_kv_heads * config.head_dim)
        self._hidden = config.hidden
        n_batch = max(n_batch, n_streams)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_streams * n_cells
        params.n_batch = params.n_ubatch = n_batch
        params.n_seq_max = params.n_outputs_max = n_streams
        params.n_outputs_max_per_seq = 1
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = n_threads
        params.embeddings = True
        # On other devices company may change rounding anyway, and without flash attention each value of a sequence
        # would be a transfer of its own when the sequence is copied.
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED if model.device.is_cpu else llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
        )
        params.type_k = params.type_v = int(type)
        params.no_perf = True
        self._model, self._pointer = model, model.new_context(params)
        if self._pointer is None:
            what = f"no memory for the talker's keys and values: {n_streams} times {n_cells} positions"
            if model.device.is_cpu:
                raise BackendError(what)
            raise DeviceError(f"{model.device.name}: {what}", hint=NO_ROOM_HINT)
        self._memory = llama_cpp.llama_get_memory(self._pointer)
        self._n_vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model.pointer))
        self._positions = np.zeros(_N_POSITION_ROWS * n_batch, np.int32)
        self._n_seq_ids = np.ones(n_batch, np.int32)
        self._wanted = np.zeros(n_batch, np.int8)
        self._streams = np.zeros(n_batch, np.int32)
        pointer = ctypes.POINTER(ctypes.c_int32)
        addresses = (self._streams.ctypes.data + i * self._streams.itemsize for i in range(n_batch))
        self._seq_ids = (pointer * n_batch)(*[ctypes.cast(address, pointer) for address in addresses])

    def decode(
        self, rows: NDArray[np.float32], positions: Sequence[int], streams: Sequence[int], *, with_outputs: bool
    ) -> None:
        """rows [n, hidden] at `positions` of `streams`, in one pass where streams are consecutive numbers."""
        n = len(rows)
        rows = np.ascontiguousarray(rows, np.float32)
        table = self._positions[: _N_POSITION_ROWS * n].reshape(_N_POSITION_ROWS, n)
        table[:3], table[3] = positions, 0
        self._streams[:n] = streams
        # llama.cpp makes outputs for all rows of a batch or for none where hidden states are asked for, and an output
        # is a row of 155,008 logits.
        self._wanted[:n] = with_outputs
        llama_cpp.llama_set_embeddings(self._pointer, with_outputs)
        batch = llama_cpp.llama_batch(
            n_tokens=n,
            token=None,
            embd=rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._n_seq_ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._seq_ids,
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        status = llama_cpp.llama_decode(self._pointer, batch)
        if status != 0:
            what = f"llama.cpp failed to decode {n} positions (status {status})"
            device = self._model.device
            raise BackendError(what) if device.is_cpu else DeviceError(f"{device.name}: {what}", hint=CPU_HINT)

    def output(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of a row of the last `decode`: hidden state [hidden] after the final norm, logits [3072] of the codes."""
        hidden = llama_cpp.llama_get_embeddings_ith(self._pointer, row)
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._pointer, row), (self._n_vocabulary,))
        return np.ctypeslib.as_array(hidden, (self._hidden,)).copy(), logits[-CODEC_VOCABULARY:].copy()

    def forget(self, stream: int, start: int = 0) -> None:
        """Drop the positions of a stream from `start` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, stream, start, -1)

    def use_threads(self, n_threads: int) -> None:
        llama_cpp.llama_set_n_threads(self._pointer, n_threads, n_threads)

    def close(self) -> None:
        """Once: after that the address may be another context's."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._model.free_context(pointer)

    def __del__(self) -> None:
        if hasattr(self, "_pointer"):
            self.close()


def copy_sequence(
    source: Context, stream: int, target: Context, target_stream: int, n_positions: int, room: NDArray[np.uint32]
) -> None:
    """Copy the keys and values of all `n_positions` of a stream into another stream, exactly, cell by cell.

    room: memory to copy by way of, of any length; new memory where it is too small.

    llama.cpp saves a sequence as [magic, sequence, number of streams] and for each stream [number of cells, its cells],
    and loads it only into a context of as many streams. So the header is rewritten for the target, in place.
    """
    size = llama_cpp.llama_state_seq_get_size(source._pointer, stream)
    n_words = size // _WORD + target.n_streams
    words = room[:n_words] if len(room) >= n_words else np.empty(n_words, np.uint32)
    address, pointer = words.ctypes.data, ctypes.POINTER(ctypes.c_uint8)
    saved = llama_cpp.llama_state_seq_get_data(source._pointer, ctypes.cast(address, pointer), size, stream)
    magic, sequence, *counts = words[: 3 + stream + 1].tolist()
    if saved != size or counts != [source.n_streams, *[0] * stream, n_positions]:
        raise BackendError("this version of llama.cpp saves keys and values in an unknown format")
    words[stream : stream + 3] = magic, sequence, target.n_streams
    n_streams_after = source.n_streams - 1 - stream
    words[size // _WORD - n_streams_after :] = 0
    n_bytes = size + _WORD * (target.n_streams - source.n_streams)
    address += _WORD * stream
    loaded = llama_cpp.llama_state_seq_set_data(target._pointer, ctypes.cast(address, pointer), n_bytes, target_stream)
    if loaded != n_bytes:
        raise BackendError(f"llama.cpp cannot load {n_positions} positions of a sequence")


def room_for_copies(context: Context) -> NDArray[np.uint32]:
    """Memory for `copy_sequence` into a context, touched, so that no copy waits for the system to provide it: 0.4 ms
    per MB, and 2.5 ms in a virtual machine whose host has to provide it first."""
    n_bytes = context.n_cells * (context.cell_bytes + _SAVED_CELL_BYTES) + _SAVED_BYTES
    room = np.empty(n_bytes // _WORD, np.uint32)
    room[:] = 0
    return room
