"""Which device computes each net.

    "cpu"                     the CPU computes all of them, and no GPU is touched
    "auto"                    a GPU that has room for all of them, else the CPU
    "gpu", "Vulkan0"          that device
    "talker=gpu,codec=cpu"    net by net, for measuring; the CPU computes those that are not named

A net goes to the CPU where its device lacks an operation that it needs, and with "auto" also where memory runs out or
the device fails while the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ..errors import DeviceError, Note, OptionError
from ..ggml.device import NO_ROOM_HINT
from ..ggml.devices import CPU, Device, devices, find_device
from ..model.files import ModelFiles
from ..model.footprint import NETS, device_bytes

__all__ = ["Placement", "load_on", "place", "require_device"]

Result = TypeVar("Result")


@dataclass(frozen=True)
class Placement:
    """A device for each of `NETS`: talker, predictor, codec (its decoder), encoders (those of reference clips)."""

    devices: Mapping[str, Device]
    falls_back: bool = False
    """Whether a net moves to the CPU when its device has no memory for it or fails, instead of failing: with "auto"."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why nets that were to be on another device are on the CPU."""
    notes: tuple[Note, ...] = ()

    def moved(self, net: str, error: DeviceError) -> Placement:
        """With this net on the CPU, because its device failed. Raises the error where that is not to be."""
        if not error.operation and not self.falls_back:
            raise error
        on_cpu = {**self.devices, net: CPU}
        note = Note(f"the CPU computes the {net}: {error.message}")
        reasons = {**self.reasons, net: error.message}
        return replace(self, devices=on_cpu, reasons=reasons, notes=(*self.notes, note))

    def entries(self) -> dict[str, str]:
        """Net -> its device, and why it is the CPU where it was to be another."""
        return {
            net: f"{device.name} ({self.reasons[net]})" if net in self.reasons else device.name
            for net, device in self.devices.items()
        }


def place(text: str, files: ModelFiles, *, check_memory: bool = False) -> Placement:
    """The placement that `TTS(device=...)` asks for.

    check_memory: refuse a device that plainly has no room. Raises OptionError for a device or net that does not exist,
    DeviceError without room.
    """
    if text.lower() == "auto":
        return _automatic(files)
    chosen = _by_net(text) if "=" in text else dict.fromkeys(NETS, find_device(text))
    if check_memory:
        for device in set(chosen.values()):
            needed, free = _needed(files, chosen, device), device.memory()[0]
            if not device.is_cpu and free and needed > free:
                raise DeviceError(_too_small(device, free, needed), hint=NO_ROOM_HINT)
    return Placement(chosen)


def require_device(text: str) -> Device:
    """The one device that a command which loads a single net computes with. Raises OptionError."""
    if text.lower() == "auto":
        return next((device for device in devices() if device.kind == "GPU"), CPU)
    return find_device(text)


def load_on(text: str, load: Callable[[Device], Result]) -> tuple[Result, tuple[Note, ...]]:
    """A single net on that device, or on the CPU with a note under the same conditions as in a `Placement`.

    Raises OptionError, DeviceError.
    """
    device = require_device(text)
    try:
        return load(device), ()
    except DeviceError as error:
        if not error.operation and text.lower() != "auto":
            raise
        note = Note(f"the CPU computes: {error.message}")
    return load(CPU), (note,)


def _automatic(files: ModelFiles) -> Placement:
    """Integrated GPUs are not chosen: they share the memory that limits the CPU."""
    notes = []
    for device in devices():
        if device.kind == "GPU":
            chosen = dict.fromkeys(NETS, device)
            needed, free = _needed(files, chosen, device), device.memory()[0]
            if not free or needed <= free:
                return Placement(chosen, falls_back=True)
            notes.append(Note(f"the CPU computes, because {_too_small(device, free, needed)}"))
    return Placement(dict.fromkeys(NETS, CPU), notes=tuple(notes))


def _by_net(text: str) -> dict[str, Device]:
    chosen = dict.fromkeys(NETS, CPU)
    for item in filter(None, (item.strip() for item in text.split(","))):
        net, equals, name = (part.strip() for part in item.partition("="))
        if not equals or net not in NETS:
            raise OptionError(
                f"'{item}' names no net and its device", hint=f"write NET=DEVICE; the nets are {', '.join(NETS)}"
            )
        chosen[net] = find_device(name)
    return chosen


def _too_small(device: Device, free: int, needed: int) -> str:
    return f"{device.name} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed"


def _needed(files: ModelFiles, chosen: Mapping[str, Device], device: Device) -> int:
    return device_bytes(files, [net for net, its_device in chosen.items() if its_device is device])
