"""The devices that this build of ggml computes with: the CPU always, and each GPU that one of its backends finds.

devices()                     (CPU, Vulkan0): the CPU first, then as ggml lists them
find_device("gpu")            the first GPU, an integrated one only where there is no other
device.memory()               (free, total) in bytes
device.supports(node)         whether it computes this node of a graph
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

from ..errors import OptionError
from . import api
from .library import cpu_device

__all__ = ["CPU", "Device", "devices", "find_device"]

_KINDS = {
    1: "GPU",
    2: "integrated GPU",
}  # ggml_backend_dev_type; accelerators such as BLAS compute parts of graphs only


@dataclass(frozen=True)
class Device:
    """One device. The name is ggml's own: CPU, CUDA0, Metal, Vulkan0."""

    name: str
    description: str
    """What the maker calls it."""
    kind: str
    """"CPU", "GPU" or "integrated GPU"."""
    handle: int

    @property
    def is_cpu(self) -> bool:
        return self.kind == "CPU"

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and all there are. Both are 0 where the driver does not report them."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        api.backend_dev_memory(self.handle, ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def supports(self, node: int) -> bool:
        """Whether it computes this node; `node` points at the C struct."""
        return bool(api.backend_dev_supports_op(self.handle, node))


def _described(handle: int, kind: str) -> Device:
    name, description = api.backend_dev_name(handle), api.backend_dev_description(handle)
    return Device(name.decode(), description.decode("utf-8", "replace"), kind, handle)


CPU = _described(cpu_device, "CPU")


@cache
def devices() -> tuple[Device, ...]:
    """The CPU, then the GPUs of this build, in ggml's order."""
    handles = [api.backend_dev_get(i) for i in range(api.backend_dev_count())]
    kinds = [(handle, _KINDS.get(api.backend_dev_type(handle))) for handle in handles]
    return (CPU, *(_described(handle, kind) for handle, kind in kinds if kind))


def find_device(name: str) -> Device:
    """The device of that name in any case, or for "gpu" the first GPU. Raises OptionError."""
    if name.lower() == "gpu":
        gpus = sorted((device for device in devices() if not device.is_cpu), key=lambda device: device.kind != "GPU")
        if gpus:
            return gpus[0]
        raise OptionError(
            "this build of llama-cpp-python finds no GPU here",
            hint="docs/gpu.md has the command that installs a build for a GPU",
        )
    for device in devices():
        if device.name.lower() == name.lower():
            return device
    offered = ", ".join(device.name for device in devices())
    raise OptionError(f"there is no device '{name}'", hint=f"this build of llama-cpp-python offers {offered}")
