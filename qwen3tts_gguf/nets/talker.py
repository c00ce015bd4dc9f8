"""The talker: the transformer that says code 0 of each frame, run by llama.cpp.

    input embeddings [T, hidden] -> 28 layers -> norm -> hidden [hidden] of the last position -> logits [3072]

Mirrors Qwen3TTSTalkerForConditionalGeneration (qwen-tts 0.1.1, core/models/modeling_qwen3_tts.py). Its rotary embedding
has three position rows that are always equal; llama.cpp wants them, and a fourth of zeros, beside each batch.

llama.cpp's vocabulary for this model is text and codec tokens in one table, whose text part comes back as -inf logits;
here tokens of the codec count from 0, and `embed_text` / `embed_codec` look rows up in the mapped file, because the
whole table as float32 would take 0.6 to 1.2 GB.
"""

from __future__ import annotations

import ctypes
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..ggml.library import forward_log
from ..ggml.types import GgmlType
from ..model.files import TalkerFile
from ..model.gguf_file import GgufFile
from ..model.integrity import require_finite
from ..model.schema import CODEC_VOCABULARY, TALKER_ARCHITECTURE, TalkerConfig
from .layers import require_numbers, table_rows

__all__ = ["Talker", "TalkerOutput", "TalkerSequence"]

_N_POSITION_ROWS = 4
_CONTEXT_STEP = 256
_FLASH_UP_TO = 768
"""Positions of a sequence for which flash attention takes less time: it saves 2.7 ms a frame, and costs 12 us for each
position there is (benchmarks/LOG.md). Speech ends at about a third of the room it is given."""
_BATCH = 512
_BATCH_STEP = 4  # positions that llama.cpp multiplies at once
_TABLE = "token_embd.weight"
_READ_BETWEEN_RELEASES = 1 / 16  # of the file, which is in memory twice until then


class TalkerOutput:
    """What one forward pass says about the position after it."""

    __slots__ = ("hidden", "logits")

    def __init__(self, hidden: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        self.hidden = hidden  # [hidden], after the final norm
        self.logits = logits  # [3072]


class Talker:
    """Holds the weights and idle contexts; an utterance is a `TalkerSequence`."""

    def __init__(self, model: TalkerFile, n_threads: int) -> None:
        self.config = model.config
        self._file = model.file
        self._n_threads = n_threads
        self._idle: list[_Context] = []
        self._loading: Future[Any] | None = None
        # Rounding keys and values to F16 is lost beside quantized weights; F32 weights are for exact comparison.
        self._kv_type = GgmlType.F32 if model.file.info("blk.0.attn_k.weight").type == GgmlType.F32 else GgmlType.F16
        weights = [name for name in model.file.tensors if name != _TABLE]
        require_finite(model.file, *weights)
        for name in weights:  # from here on they are read through llama.cpp's own mapping
            model.file.release(name)
        # What follows is little Python, so that the caller can go on meanwhile.
        loading = ThreadPoolExecutor(max_workers=1)
        self._loading = loading.submit(_load_model, model.file, model.config)
        loading.shutdown(wait=False)

    def wait_until_loaded(self) -> Any:
        """llama.cpp reads the weights while the caller goes on -> its model. Raises BackendError."""
        assert self._loading, "the talker is closed"
        return self._loading.result()

    def embed_text(self, ids: NDArray[np.integer] | list[int]) -> NDArray[np.float32]:
        """Text token ids [T] -> [T, hidden], text projection included."""
        return table_rows(self._file, _TABLE, np.asarray(ids, np.intp))

    def embed_codec(self, tokens: NDArray[np.integer] | list[int]) -> NDArray[np.float32]:
        """Codec tokens [T], 0..3071 -> [T, hidden]"""
        return table_rows(self._file, _TABLE, np.asarray(tokens, np.intp) + self.config.text_vocabulary)

    def new_sequence(self, n_positions: int) -> TalkerSequence:
        """An empty sequence with room for `n_positions`; give it back with `close`. Raises BackendError."""
        n_positions = min(-(-n_positions // _CONTEXT_STEP) * _CONTEXT_STEP, self.config.context_length)
        flash = self._kv_type == GgmlType.F16 and n_positions <= _FLASH_UP_TO  # from the length alone, as rounding is
        alike = [context for context in self._idle if context.flash == flash]
        for context in alike:
            if context.n_positions >= n_positions:
                self._idle.remove(context)
                return TalkerSequence(self, context)
        for context in alike:  # too small to be of use again
            self._idle.remove(context)
        return TalkerSequence(self, self._new_context(n_positions, flash))

    def _new_context(self, n_positions: int, flash: bool) -> _Context:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_positions
        params.n_batch = params.n_ubatch = min(_BATCH, n_positions)
        params.n_seq_max = 1
        params.n_outputs_max = 1
        params.n_threads = params.n_threads_batch = self._n_threads
        params.embeddings = True
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.type_k = params.type_v = int(self._kv_type)
        params.no_perf = True
        pointer = llama_cpp.llama_init_from_model(self.wait_until_loaded(), params)
        if not pointer:
            raise BackendError(f"llama.cpp cannot make a context of {n_positions} positions: not enough memory?")
        return _Context(pointer, n_positions, flash, self.config.hidden)

    def _take_back(self, context: _Context) -> None:
        self._idle.append(context)

    def close(self) -> None:
        """Free contexts and weights; sequences still open must be closed before."""
        self._idle.clear()
        loading, self._loading = self._loading, None
        if loading and not loading.exception():
            llama_cpp.llama_model_free(loading.result())

    def __del__(self) -> None:
        if hasattr(self, "_loading"):
            self.close()


def _load_model(file: GgufFile, config: TalkerConfig) -> Any:
    # llama.cpp maps the file and reads all of it in: also the token table, which it never looks at since it is
    # given embeddings (165 MB of the 0.6B at Q8_0), and the matrices it copies into a faster layout.
    unused = [_TABLE]
    next_release = 0.0

    @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
    def on_progress(fraction: float, _user_data: Any) -> bool:
        nonlocal next_release
        if fraction >= next_release:
            file.release_everywhere(unused)
            next_release = fraction + _READ_BETWEEN_RELEASES
        return True  # go on

    forward_log()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False  # AMX crashes in some builds
    params.kv_overrides = _without_tokenizer(config.vocabulary)
    params.progress_callback = on_progress
    model = llama_cpp.llama_model_load_from_file(str(file.path).encode(), params)
    if not model:
        raise BackendError(f"llama.cpp cannot load {file.path} (--debug shows its log)")
    file.release_everywhere(unused)
    return model


def _without_tokenizer(n_tokens: int) -> Any:
    """What has llama.cpp take the file for one whose tokens have numbers only: it is given embeddings, and its own
    tables of 155,008 tokens would take 0.3 s and 50 MB."""
    overrides = (llama_cpp.llama_model_kv_override * 3)()  # the last, without a key, ends the list
    model, size, _ = overrides
    model.tag, model.key = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, b"tokenizer.ggml.model"
    model.value.val_str = b"none"
    size.tag, size.key = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, f"{TALKER_ARCHITECTURE}.vocab_size".encode()
    size.value.val_i64 = n_tokens
    return overrides


class TalkerSequence:
    """One utterance's keys and values."""

    def __init__(self, talker: Talker, context: _Context) -> None:
        self._talker = talker
        self._context: _Context | None = context
        self.n_positions = 0
        self.n_kept = 0
        """Positions that were there from a sequence before."""
        self._began = False

    def forward(self, embeddings: NDArray[np.float32], n_shared: int = 0) -> TalkerOutput:
        """embeddings [T, hidden], the next T positions -> the output at the last of them.

        n_shared: of the first call, how many leading positions other sequences are likely to have as well. They go in
        by themselves, so that they are the same wherever they come from: when the sequence that had this memory before
        began with them too, they are there already. Raises BackendError; ModelFileError when weights turn out to be
        damaged.
        """
        assert self._context is not None, "the sequence is closed"
        if not self._began:
            shared = embeddings[: n_shared // _BATCH_STEP * _BATCH_STEP]
            if self._context.begin(shared):
                self.n_kept = len(shared)
            self._began, self.n_positions = True, len(shared)
            embeddings = embeddings[len(shared) :]
        # llama.cpp makes outputs for a whole batch or for none where hidden states are asked for, and an output is a
        # row of 155,008 logits: so all but the last position go first, silently.
        self._decode(embeddings[:-1], with_output=False)
        self._decode(embeddings[-1:], with_output=True)
        out = self._context.output()
        for values in (out.hidden, out.logits):
            require_numbers(values, self._talker._file, "talker")
        return out

    def use_threads(self, n_threads: int) -> None:
        """From the next positions on; results do not depend on it."""
        assert self._context is not None, "the sequence is closed"
        llama_cpp.llama_set_n_threads(self._context.pointer, n_threads, n_threads)

    def _decode(self, embeddings: NDArray[np.float32], *, with_output: bool) -> None:
        assert self._context is not None
        self._context.decode(embeddings, self.n_positions, with_output=with_output)
        self.n_positions += len(embeddings)

    def close(self) -> None:
        """Hand the memory back for the next utterance."""
        if self._context is not None:
            self._talker._take_back(self._context)
            self._context = None


class _Context:
    """A llama_context and the batch arrays that feed it, made once."""

    def __init__(self, pointer: Any, n_positions: int, flash: bool, hidden: int) -> None:
        self.pointer = pointer
        self.n_positions = n_positions
        self.flash = flash
        self._hidden = hidden
        n = min(_BATCH, n_positions)
        self._positions = np.zeros(_N_POSITION_ROWS * n, np.int32)
        self._n_seq_ids = np.ones(n, np.int32)
        self._seq_id = ctypes.c_int32(0)
        self._prefix = np.zeros((0, hidden), np.float32)  # what the memory begins with
        self._seq_ids = (ctypes.POINTER(ctypes.c_int32) * n)(*[ctypes.pointer(self._seq_id)] * n)
        self._wanted = np.zeros(n, np.int8)

    def begin(self, prefix: NDArray[np.float32]) -> bool:
        """Forget all but `prefix` [T, hidden], which goes in unless the memory begins with it; whether it did."""
        memory = llama_cpp.llama_get_memory(self.pointer)
        if np.array_equal(self._prefix, prefix) and llama_cpp.llama_memory_seq_rm(memory, 0, len(prefix), -1):
            return True
        llama_cpp.llama_memory_clear(memory, False)
        self._prefix = prefix[:0]
        self.decode(prefix, 0, with_output=False)
        self._prefix = prefix.copy()
        return False

    def decode(self, embeddings: NDArray[np.float32], start: int, *, with_output: bool) -> None:
        """embeddings [T, hidden] at the positions from `start` on."""
        for i in range(0, len(embeddings), _BATCH):
            self._decode_batch(embeddings[i : i + _BATCH], start + i, with_output=with_output)

    def _decode_batch(self, embeddings: NDArray[np.float32], start: int, *, with_output: bool) -> None:
        n = len(embeddings)
        if start + n > self.n_positions:
            raise BackendError(f"the sequence is longer than its {self.n_positions} positions")
        embeddings = np.ascontiguousarray(embeddings, np.float32)
        positions = self._positions[: _N_POSITION_ROWS * n].reshape(_N_POSITION_ROWS, n)
        positions[:3] = np.arange(start, start + n)
        positions[3] = 0
        llama_cpp.llama_set_embeddings(self.pointer, with_output)
        self._wanted[:n] = with_output
        batch = llama_cpp.llama_batch(
            n_tokens=n,
            token=None,
            embd=embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._n_seq_ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._seq_ids,
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
        status = llama_cpp.llama_decode(self.pointer, batch)
        if status != 0:
            raise BackendError(f"llama.cpp failed to decode {n} positions at {start} (status {status})")

    def output(self) -> TalkerOutput:
        hidden = llama_cpp.llama_get_embeddings_ith(self.pointer, -1)
        logits = llama_cpp.llama_get_logits_ith(self.pointer, -1)
        n_vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(llama_cpp.llama_get_model(self.pointer))
        )
        all_logits = np.ctypeslib.as_array(logits, (n_vocabulary,))
        return TalkerOutput(
            np.ctypeslib.as_array(hidden, (self._hidden,)).copy(), all_logits[n_vocabulary - CODEC_VOCABULARY :].copy()
        )

    def __del__(self) -> None:
        llama_cpp.llama_free(self.pointer)
