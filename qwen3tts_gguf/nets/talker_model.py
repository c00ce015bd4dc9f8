"""llama.cpp's model of the talker's file: loaded, with each matrix in the buffer type that we choose.

llama.cpp maps the file. A matrix in an extra buffer type (ggml/device.py) is copied there, and its pages of the file
are handed back while the rest is still being read.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import Any

import llama_cpp

from ..errors import BackendError, DeviceError
from ..ggml.device import NO_ROOM_HINT, ON_DEVICE, Backend, extra_buffer_types
from ..ggml.devices import CPU, Device
from ..ggml.types import GgmlType
from ..model.files import TalkerFile
from ..model.gguf_file import GgufFile
from ..model.schema import TALKER_ARCHITECTURE, TalkerConfig, talker_tensors

__all__ = ["TOKEN_TABLE", "LoadedModel", "TalkerBuffers", "kv_type", "load_model", "placements"]

TOKEN_TABLE = "token_embd.weight"
_READ_BETWEEN_RELEASES = 1 / 16  # of the file, which is in memory twice until then


class TalkerBuffers(Enum):
    """The extra buffer types in which the talker's matrices may lie, where ggml can multiply with them there."""

    PLAIN = "plain"
    """None: every matrix is read where the file is mapped."""
    REPACK = "repack"
    """CPU_REPACK alone, which works in every build."""
    EXTRA = "extra"
    """All that this build offers, in its own order of preference. AMX crashes in some builds (ggml/trial.py)."""


def placements(model: TalkerFile, buffers: TalkerBuffers, device: Device = CPU) -> dict[str, str]:
    """Every matrix that the talker multiplies with -> the extra buffer type it goes to, empty for the mapped file;
    ON_DEVICE where another device than the CPU computes."""
    allowed = {
        TalkerBuffers.PLAIN: (),
        TalkerBuffers.REPACK: ("CPU_REPACK",),
        TalkerBuffers.EXTRA: tuple(extra_buffer_types()),
    }
    shapes = {
        name: shape for name, shape in talker_tensors(model.config).items() if len(shape) == 2 and name != TOKEN_TABLE
    }
    if not device.is_cpu:
        return dict.fromkeys(shapes, ON_DEVICE)
    backend = Backend(1, allowed[buffers])
    return {name: backend.placement(shape, model.file.info(name).type) for name, shape in shapes.items()}


class LoadedModel:
    """A llama_model and the contexts made of it, which are freed before it: in whatever order, and on whatever thread,
    Python finalizes the objects that use them."""

    def __init__(self, pointer: Any, device: Device = CPU) -> None:
        self.pointer, self.device = pointer, device
        self._contexts: set[Any] = set()  # addresses, not objects: these might be finalized before

    def new_context(self, params: Any) -> Any:
        """A llama_context, or None where there is no memory for it."""
        context = llama_cpp.llama_init_from_model(self.pointer, params) or None
        if context is not None:
            self._contexts.add(context)
        return context

    def free_context(self, context: Any) -> None:
        """For its owner, once: an address that was freed may be given to the next context. Nothing after `close`."""
        with suppress(KeyError):
            self._contexts.remove(context)
            llama_cpp.llama_free(context)

    def close(self) -> None:
        for context in list(self._contexts):
            self.free_context(context)
        pointer, self.pointer = self.pointer, None
        if pointer:
            llama_cpp.llama_model_free(pointer)

    def __del__(self) -> None:
        self.close()


def load_model(file: GgufFile, config: TalkerConfig, placed: dict[str, str], device: Device = CPU) -> LoadedModel:
    """Raises BackendError; DeviceError where another device than the CPU cannot take the weights."""
    # llama.cpp reads all of the file in: also the token table, which it never looks at since it is given embeddings
    # (165 MB of the 0.6B at Q8_0), and the matrices that it copies.
    unused = [TOKEN_TABLE, *(name for name, placement in placed.items() if placement)]
    next_release = 0.0

    @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
    def on_progress(fraction: float, _user_data: Any) -> bool:
        nonlocal next_release
        if fraction >= next_release:
            file.release_everywhere(unused)
            next_release = fraction + _READ_BETWEEN_RELEASES
        return True  # go on

    llama_cpp.llama_backend_init()
    overrides = _buffer_overrides(placed)
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0 if device.is_cpu else config.n_layers + 1  # the output is one more
    # Without a list llama.cpp takes all devices, and has them compute long prompts even where no layer lies there.
    used = (ctypes.c_void_p * 2)(None if device.is_cpu else device.handle)
    params.devices = ctypes.addressof(used)
    params.use_extra_bufts = False  # ours are in the overrides
    params.tensor_buft_overrides = ctypes.addressof(overrides)
    params.kv_overrides = _without_tokenizer(config.vocabulary)
    params.progress_callback = on_progress
    model = llama_cpp.llama_model_load_from_file(str(file.path).encode(), params)
    if not model and not device.is_cpu:
        raise DeviceError(f"llama.cpp cannot load {file.path} into the memory of {device.name}", hint=NO_ROOM_HINT)
    if not model:
        raise BackendError(f"llama.cpp cannot load {file.path}", hint="its log says why")
    file.release_everywhere(unused)
    return LoadedModel(model, device)


class _BufferOverride(ctypes.Structure):
    """struct llama_model_tensor_buft_override (llama.h)"""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def _buffer_overrides(placed: dict[str, str]) -> Any:
    """An array of regular expressions with the buffer type for the tensors they match; one without an expression ends
    it. llama.cpp compiles each of them again for each tensor (32 us for these), so there is one for each buffer
    type."""
    names: dict[str, list[str]] = {}
    for name, placement in placed.items():
        if placement in extra_buffer_types():
            names.setdefault(placement, []).append(name)
    overrides = (_BufferOverride * (len(names) + 1))()
    for override, (placement, alike) in zip(overrides, names.items(), strict=False):
        override.pattern = _matching(alike).encode()
        override.buffer_type = extra_buffer_types()[placement]
    return overrides


def _matching(names: Iterable[str]) -> str:
    """The regular expression of exactly these names. Matrices of the layers that share their layer numbers share them
    in the expression too: ^(blk\\.(0|1)\\.(attn_k|attn_q)|output)\\.weight$"""
    layers: dict[str, list[str]] = {}  # of each matrix
    others = []
    for name in names:
        if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
            layers.setdefault(match[2], []).append(match[1])
        else:
            others.append(name.removesuffix(".weight"))
    matrices: dict[str, list[str]] = {}  # of each set of layers
    for matrix, numbers in layers.items():
        matrices.setdefault("|".join(numbers), []).append(matrix)
    blocks = [rf"blk\.({numbers})\.({'|'.join(alike)})" for numbers, alike in matrices.items()]
    return rf"^({'|'.join([*blocks, *others])})\.weight$"


def _without_tokenizer(n_tokens: int) -> Any:
    """Overrides that make the file one whose tokens are numbers only: llama.cpp is given embeddings, and its own tables
    of 155,008 tokens would take 0.3 s and 50 MB."""
    overrides = (llama_cpp.llama_model_kv_override * 3)()  # the last, without a key, ends the list
    model, size, _ = overrides
    model.tag, model.key = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, b"tokenizer.ggml.model"
    model.value.val_str = b"none"
    size.tag, size.key = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, f"{TALKER_ARCHITECTURE}.vocab_size".encode()
    size.value.val_i64 = n_tokens
    return overrides


def kv_type(model: TalkerFile) -> GgmlType:
    """The type of keys and values. Rounding them to F16 is negligible next to quantized weights; F32 weights are for
    exact comparison."""
    return GgmlType.F32 if model.file.info("blk.0.attn_k.weight").type == GgmlType.F32 else GgmlType.F16
