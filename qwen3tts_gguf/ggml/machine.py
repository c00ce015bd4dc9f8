"""What this machine's CPU is, and what the installed build of ggml makes of it.

    machine = this_machine()
    machine.name            "Intel(R) Xeon(R) Platinum 8488C"
    machine.vendor          "intel"
    machine.features        {"avx2", "avx512f", "amx_int8", ...}: what the CPU has, in Linux's words
    machine.build           {"AVX2", "AVX512", "REPACK", ...}: what this build of ggml was compiled to use
    machine.buffer_types    ("AMX", "CPU_REPACK"): the extra buffer types it offers

A plain value, so that a choice made from it can be tested with a CPU that is not there.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from . import api
from .device import extra_buffer_types
from .library import cpu_device

__all__ = ["Machine", "this_machine"]

_VENDORS = {
    "GenuineIntel": "intel",
    "AuthenticAMD": "amd",
    "HygonGenuine": "amd",  # Zen under licence
    "Apple": "apple",
    "0x41": "arm",  # ARM's list of implementers: Arm itself, whose cores AWS, Google and Microsoft use
    "0xc0": "ampere",
    "0x61": "apple",
    "0x51": "qualcomm",
}


@dataclass(frozen=True)
class Machine:
    """A CPU and a build of ggml on it."""

    name: str
    vendor: str
    """"intel", "amd", "arm", "ampere", "apple", "qualcomm", or "" for any other."""
    features: frozenset[str]
    """What the CPU has, as Linux writes it; empty where the system does not list it."""
    build: frozenset[str]
    """What ggml's CPU backend uses, as ggml writes it."""
    buffer_types: tuple[str, ...]
    """Names of the extra buffer types that ggml offers, in its order."""


@cache
def this_machine() -> Machine:
    """The machine that this process runs on."""
    name, vendor, features = _cpu()
    return Machine(name, vendor, features, _build_features(), tuple(extra_buffer_types()))


def _cpu() -> tuple[str, str, frozenset[str]]:
    if sys.platform == "linux":
        return read_cpuinfo(Path("/proc/cpuinfo"))
    if sys.platform == "darwin":
        name = _sysctl("machdep.cpu.brand_string")
        return name, _VENDORS.get(_sysctl("machdep.cpu.vendor") or name.split(" ")[0], ""), frozenset()
    if sys.platform == "win32":
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            name = str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
            vendor = str(winreg.QueryValueEx(key, "VendorIdentifier")[0])
        return name, _VENDORS.get(vendor, ""), frozenset()
    return platform.processor() or platform.machine(), "", frozenset()


def read_cpuinfo(path: Path) -> tuple[str, str, frozenset[str]]:
    """Name, vendor and features of the first processor in Linux's /proc/cpuinfo, of x86 or Arm."""
    facts: dict[str, str] = {}
    try:
        for line in path.read_text().splitlines():
            name, colon, value = line.partition(":")
            if colon:
                facts.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    vendor = facts.get("vendor_id") or facts.get("CPU implementer", "")
    part = f"{platform.machine()} {vendor} {facts.get('CPU part', '')}".strip()
    features = facts.get("flags") or facts.get("Features", "")
    return facts.get("model name") or part, _VENDORS.get(vendor, ""), frozenset(features.split())


def _sysctl(name: str) -> str:
    """A text that macOS knows about the machine; empty when it does not."""
    import ctypes

    # int sysctlbyname(const char *name, void *oldp, size_t *oldlenp, void *newp, size_t newlen);
    value = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t(len(value))
    failed = ctypes.CDLL(None).sysctlbyname(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0))
    return "" if failed else value.value.decode("utf-8", "replace")


def _build_features() -> frozenset[str]:
    """What ggml's CPU backend says it uses."""
    found: set[str] = set()
    if api.get_features is None:
        return frozenset()
    features = api.get_features(api.backend_dev_backend_reg(cpu_device))
    i = 0
    while features[i].name:
        if features[i].value != b"0":
            found.add(features[i].name.decode())
        i += 1
    return frozenset(found)
