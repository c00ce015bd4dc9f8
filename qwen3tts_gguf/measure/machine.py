"""The process and the machine that a measurement was made on, as plain data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from ctypes import c_char_p
from pathlib import Path
from typing import Any

from ..errors import BackendError
from ..ggml.library import function

__all__ = ["machine_facts", "memory_gb", "process_seconds", "versions"]

_imported = time.perf_counter()


def process_seconds() -> tuple[float, str]:
    """The age of this process and what it is counted from: on Linux its creation (to 10 ms), elsewhere our import."""
    if sys.platform == "linux":
        # proc(5): field 22 is the start in clock ticks since boot; the second field, in brackets, may hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        created = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - created, "process creation"
    return time.perf_counter() - _imported, "import"


def memory_gb(line: str, *, or_peak: bool = False) -> float | None:
    """A line of Linux's /proc/self/status, mapped file pages included; elsewhere, at most, getrusage's peak.

    Not getrusage on Linux: there a child starts with its parent's peak.
    """
    if sys.platform == "linux":
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith(f"{line}:"):
                return int(text.split()[1]) * 1024 / 1e9
        return None
    if or_peak and sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    return None


def machine_facts() -> dict[str, Any]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": memory_bytes and memory_bytes / 1e9,
        "system": f"{platform.system()} {platform.machine()}",
        "features": _features(),
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _features() -> dict[str, list[str]]:
    """The CPU features that each of ggml's backends reports: {"CPU": ["AVX2", ...]}"""
    # const char * llama_print_system_info(void);   -> "CPU : SSE3 = 1 | AVX2 = 1 | " for all backends in a row
    line: str = function("llama_print_system_info", c_char_p)().decode()
    features: dict[str, list[str]] = {}
    backend = ""
    for item in line.split("|"):
        name, _, rest = item.rpartition(" : ")
        backend = name.strip() or backend
        feature, equals, value = (part.strip() for part in rest.partition("="))
        if equals and value != "0":
            features.setdefault(backend, []).append(feature if value == "1" else f"{feature}={value}")
    return features


def versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("qwen3tts-gguf", "llama-cpp-python", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            versions[name] = "not installed"
    try:
        # const char * ggml_version(void);
        versions["ggml"] = function("ggml_version", c_char_p)().decode()
    except BackendError:
        versions["ggml"] = "unknown"
    return versions
