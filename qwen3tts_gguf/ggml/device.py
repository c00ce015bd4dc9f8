"""Where tensors live and what computes them: a device's backend, its buffer types, and weights placed in them.

    backend = Backend(n_threads=2, placements=("AMX", "CPU_REPACK"))
    weights = Weights(backend)
    w = weights.matrix(blocks, (out, in), GgmlType.Q4_0)    # in the first placement that can multiply with it
    w.placement                                             # "AMX", "CPU_REPACK", or "" for ordinary memory

Besides ordinary memory, ggml's CPU backend has "extra" buffer types, whose layout of a matrix suits one kind of CPU. A
matrix there can be multiplied with and nothing else: no row lookup, no reading back. Which of them a machine should use
is not decided here (engine/plan.py); a type that ggml offers may still crash the process (ggml/trial.py).

The memory of any other device (devices.py) cannot be reached by a pointer: weights are uploaded there once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DeviceError
from . import api
from .devices import CPU, Device
from .library import cpu_device, forward_log
from .types import GgmlType

__all__ = [
    "CPU_HINT",
    "NO_ROOM_HINT",
    "ON_DEVICE",
    "Arena",
    "Backend",
    "Shape",
    "Tensor",
    "Weights",
    "extra_buffer_types",
    "numpy_type",
]

Shape = tuple[int, ...]

_DTYPES: dict[GgmlType, Any] = {GgmlType.F32: np.float32, GgmlType.F16: np.float16, GgmlType.I32: np.int32}
_TYPES = {np.dtype(dtype): type for type, dtype in _DTYPES.items()}
_ALIGNMENT = 32
ON_DEVICE = "device"
"""The placement of weights in the memory of a device other than the CPU."""
NO_ROOM_HINT = "use a model of a smaller type or size, or the CPU with `device`"
CPU_HINT = "use the CPU with `device`"
_SMALL_BYTES = 1 << 20
"""Tensors below this size share buffers on a device, whose allocations are few and large."""


class Tensor:
    """A node or leaf of a graph: a pointer to the C struct, the shape in NumPy order, the type.

    placement: for a weight, the name of the extra buffer type it lies in, or ON_DEVICE; empty for ordinary memory.
    """

    __slots__ = ("placement", "pointer", "shape", "type")

    def __init__(self, pointer: int, shape: Shape, type: GgmlType = GgmlType.F32) -> None:
        assert pointer, "ggml ran out of its node budget"
        self.pointer, self.shape, self.type = pointer, shape, type
        self.placement = ""

    @property
    def struct(self) -> api.TensorStruct:
        return api.TensorStruct.from_address(self.pointer)

    def __repr__(self) -> str:
        return f"Tensor({list(self.shape)} {self.type.name})"


class Backend:
    """What computes graphs: the CPU with a number of threads, or another device.

    placements: names of the CPU's extra buffer types in which matrices may be placed, the preferred one first; names
    that this build of ggml does not offer are passed over. Not for two threads at once. Raises BackendError.
    """

    def __init__(self, n_threads: int, placements: Sequence[str] = (), device: Device = CPU) -> None:
        forward_log()
        self.device = device
        self.on_host = device.is_cpu
        """Whether the memory of tensors can be read and written through pointers."""
        self.pointer = api.backend_dev_init(device.handle, None)
        self._spare: dict[int, list[int]] = {}
        """Buffers that were given back, by their size."""
        if not self.pointer:
            message = f"ggml cannot start its backend for {device.name}"
            raise BackendError(message) if self.on_host else DeviceError(message, hint=CPU_HINT)
        self.use_threads(n_threads)
        self.plain_buffers: int = (
            api.backend_cpu_buffer_type() if self.on_host else api.backend_dev_buffer_type(device.handle)
        )
        offered = extra_buffer_types() if self.on_host else {}
        self._placements = {name: offered[name] for name in placements if name in offered}

    def use_threads(self, n_threads: int) -> None:
        """Of the CPU, from the next computation on; results do not depend on it."""
        if self.on_host:
            api.backend_set_n_threads(self.pointer, n_threads)

    def no_memory(self, what: str) -> BackendError:
        """The error for memory that could not be had."""
        if self.on_host:
            return BackendError(f"no memory for {what}")
        return DeviceError(f"{self.device.name}: no memory for {what}", hint=NO_ROOM_HINT)

    def for_one_graph(self) -> Backend:
        """What to compute a graph with that is built once, computed and freed: on a device a backend of its own, since
        Mesa's software Vulkan crashes when a backend goes on after memory that its graphs used was freed."""
        return self if self.on_host else Backend(1, device=self.device)

    def placement(self, shape: Shape, type: GgmlType) -> str:
        """The name of the first placement that can multiply with a matrix [out, in] of this type; "" if none can."""
        for name, buffer_type in self._placements.items():
            if _multiplies(buffer_type, shape, type):
                return name
        return ""

    def allocate(self, tensor: Tensor, placement: str) -> int:
        """A buffer of that extra type with `tensor` in it. Raises BackendError when there is no memory for it."""
        buffer_type = self._placements[placement]
        size = api.backend_buft_get_alloc_size(buffer_type, tensor.pointer)
        buffer = api.backend_buft_alloc_buffer(buffer_type, size)
        if not buffer:
            raise self.no_memory(f"{size} bytes of weights")
        return int(buffer)

    def reserve(self, n_bytes: int) -> int:
        """A buffer in the device's own memory. Raises DeviceError."""
        if spare := self._spare.get(n_bytes):
            return spare.pop()
        buffer = api.backend_buft_alloc_buffer(self.plain_buffers, n_bytes)
        if not buffer:
            raise self.no_memory(f"{n_bytes / 1e6:.0f} MB")
        return int(buffer)

    def give_back(self, buffer: int, n_bytes: int) -> None:
        """Keep a buffer of `reserve` for the next that is as large; it is freed with the backend. On any thread."""
        self._spare.setdefault(n_bytes, []).append(buffer)

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            for buffers in self._spare.values():
                for buffer in buffers:
                    api.backend_buffer_free(buffer)
            api.backend_free(self.pointer)


@cache
def extra_buffer_types() -> dict[str, int]:
    """The extra buffer types of this build of ggml on this CPU, by name, in ggml's own order: name -> handle."""
    types = api.dev_get_extra_bufts(cpu_device) if api.dev_get_extra_bufts else None
    found: dict[str, int] = {}
    while types and types[len(found)]:
        handle = int(types[len(found)])
        found[api.backend_buft_name(handle).decode()] = handle
    return found


@cache
def _multiplies(buffer_type: int, shape: Shape, type: GgmlType) -> bool:
    """Whether ggml computes a product with a matrix of this shape and type that lies in a buffer of this type.

    Asked as llama.cpp asks when it places a model's weights: by a product whose weight lies in an empty buffer.
    """
    if len(shape) != 2:
        return False
    arena = Arena(3)
    weight, x = arena.new(shape, type), arena.new((512, shape[1]), GgmlType.F32)
    buffer = api.backend_buft_alloc_buffer(buffer_type, 0)
    weight.struct.buffer = buffer
    product = api.mul_mat(arena.pointer, weight.pointer, x.pointer)
    supported = bool(api.backend_dev_supports_op(cpu_device, product))
    api.backend_buffer_free(buffer)
    return supported


class Arena:
    """A ggml context that holds tensor structs, not their data."""

    def __init__(self, max_tensors: int, extra_bytes: int = 0) -> None:
        size = api.tensor_overhead() * max_tensors + extra_bytes
        self.pointer = api.init(api.InitParams(size, None, True))
        if not self.pointer:
            raise BackendError(f"no memory for a graph of {max_tensors} nodes")

    def new(self, shape: Shape, type: GgmlType) -> Tensor:
        ne = (ctypes.c_int64 * len(shape))(*reversed(shape))
        return Tensor(api.new_tensor(self.pointer, type, len(shape), ne), shape, type)

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            api.free(self.pointer)


class Weights:
    """Tensors that outlive graphs: mapped from a file, copied into a faster layout or to a device, or made from an
    array."""

    def __init__(self, backend: Backend, max_tensors: int = 1024) -> None:
        self._backend = backend
        self._arena = Arena(max_tensors)
        self._buffers: list[int] = []
        self._kept: list[Any] = []
        self._free_at = self._free_until = 0  # in the last of the buffers that small tensors share on a device

    def mapped(self, blocks: NDArray[np.uint8], shape: Shape, type: GgmlType) -> Tensor:
        """The bytes where they lie (kept alive), copied only when not aligned, which a GGUF file's tensors are; on a
        device other than the CPU always a copy."""
        assert blocks.nbytes == prod(shape[:-1]) * type.row_bytes(shape[-1]), (shape, type, blocks.nbytes)
        if not self._backend.on_host:
            return self._uploaded(blocks, shape, type)
        blocks = _aligned(blocks)
        tensor = self._arena.new(shape, type)
        buffer = api.backend_cpu_buffer_from_ptr(blocks.ctypes.data, blocks.nbytes)
        self._place(tensor, buffer, blocks.ctypes.data)
        self._kept.append(blocks)
        return tensor

    def matrix(self, blocks: NDArray[np.uint8], shape: Shape, type: GgmlType) -> Tensor:
        """A matrix [out, in] for `Graph.linear` alone: a copy in the backend's placement for it, or mapped."""
        placement = self._backend.placement(shape, type)
        if not placement:
            return self.mapped(blocks, shape, type)
        tensor = self._arena.new(shape, type)
        buffer = self._backend.allocate(tensor, placement)
        self._place(tensor, buffer, api.backend_buffer_get_base(buffer))
        contiguous = np.ascontiguousarray(blocks)
        api.backend_tensor_set(tensor.pointer, contiguous.ctypes.data, 0, contiguous.nbytes)
        tensor.placement = placement
        return tensor

    def filled(self, shape: Shape, dtype: Any, fill: Callable[[NDArray[Any]], None]) -> Tensor:
        """A tensor of values that `fill` writes into an array of this shape."""
        n_bytes = prod(shape) * np.dtype(dtype).itemsize
        room = np.empty(n_bytes + _ALIGNMENT, np.uint8)
        start = -room.ctypes.data % _ALIGNMENT
        memory = room[start : start + n_bytes]
        fill(memory.view(dtype).reshape(shape))
        return self.mapped(memory, shape, _TYPES[np.dtype(dtype)])

    def array(self, values: NDArray[Any]) -> Tensor:
        """A float32, float16 or int32 array, kept as it is."""
        flat = np.ascontiguousarray(values).reshape(-1)
        return self.mapped(flat.view(np.uint8), values.shape, _TYPES[values.dtype])

    def _uploaded(self, blocks: NDArray[np.uint8], shape: Shape, type: GgmlType) -> Tensor:
        backend, tensor = self._backend, self._arena.new(shape, type)
        alignment = api.backend_buft_get_alignment(backend.plain_buffers)
        size = api.backend_buft_get_alloc_size(backend.plain_buffers, tensor.pointer)
        size = -(-size // alignment) * alignment
        if size >= _SMALL_BYTES:
            self._buffers.append(backend.reserve(size))
            buffer, address = self._buffers[-1], api.backend_buffer_get_base(self._buffers[-1])
        else:
            if self._free_until - self._free_at < size:
                self._shared = backend.reserve(_SMALL_BYTES)
                self._buffers.append(self._shared)
                self._free_at = api.backend_buffer_get_base(self._shared)
                self._free_until = self._free_at + _SMALL_BYTES
            buffer, address = self._shared, self._free_at
            self._free_at += size
        if api.backend_tensor_alloc(buffer, tensor.pointer, address) != api.STATUS_SUCCESS:
            raise BackendError(f"ggml cannot place a weight of shape {list(shape)} on {backend.device.name}")
        contiguous = np.ascontiguousarray(blocks)
        api.backend_tensor_set(tensor.pointer, contiguous.ctypes.data, 0, contiguous.nbytes)
        tensor.placement = ON_DEVICE
        return tensor

    def _place(self, tensor: Tensor, buffer: int, address: int) -> None:
        self._buffers.append(buffer)
        if api.backend_tensor_alloc(buffer, tensor.pointer, address) != api.STATUS_SUCCESS:
            raise BackendError(f"ggml cannot place a weight of shape {list(tensor.shape)}")

    def __del__(self) -> None:
        for buffer in getattr(self, "_buffers", ()):
            api.backend_buffer_free(buffer)


def _aligned(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    offset = -blocks.ctypes.data % _ALIGNMENT
    if not offset:
        return blocks
    room = np.empty(blocks.nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    copy = room[start : start + blocks.nbytes]
    copy[:] = blocks.reshape(-1)
    return copy


def numpy_type(type: GgmlType) -> Any:
    """NumPy's type for the values of a tensor that `Graph.array` can show."""
    return _DTYPES[type]
