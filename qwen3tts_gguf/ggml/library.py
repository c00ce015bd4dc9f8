"""The one libggml of this process: the instance llama.cpp already runs on.

llama-cpp-python's wheel holds several copies of each library; loading one by path would give a second ggml with state
of its own. Symbols are therefore looked up through the handle of the loaded libllama, which reaches its dependencies
(dlsym on Linux and macOS), or through the already loaded modules (Windows); `_check_shared` proves that both see one
state.

The CPU backend is a dependency of libllama in most builds. In a build with GGML_BACKEND_DL it is a plugin, one for each
kind of CPU, that has to be loaded: when none is registered, the import of this module does it. Its functions are in a
library of their own then, so that library is looked up by the address of one of them.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp

from ..errors import BackendError

__all__ = ["cpu_device", "cpu_function", "cpu_library", "forward_log", "function"]

_log = logging.getLogger("qwen3tts_gguf.ggml")

_WINDOWS_MODULES = ("ggml-base.dll", "ggml.dll")
_DEVICE_TYPE_CPU = 0
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}  # ggml_log_level; INFO is chatter


def _open_libraries() -> list[ctypes.CDLL]:
    libllama = llama_cpp._lib  # the only name llama-cpp-python gives the handle
    # A second view of the same handle, so that our prototypes and llama-cpp-python's do not meet.
    libraries = [ctypes.CDLL(libllama._name, handle=libllama._handle)]
    if sys.platform == "win32":
        libraries += [ctypes.CDLL(name) for name in _WINDOWS_MODULES]  # LoadLibrary by name finds the loaded module
    return libraries


_libraries = _open_libraries()


def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """The C function `name` with its prototype. Raises BackendError when this build lacks it."""
    for library in _libraries:
        try:
            found = getattr(library, name)
        except AttributeError:
            continue
        found.restype, found.argtypes = result, arguments
        return found  # type: ignore[no-any-return]
    raise BackendError(f"the installed llama-cpp-python's ggml has no {name}: install llama-cpp-python>=0.3.36,<0.4")


# -- llama.cpp's log -------------------------------------------------------------------------------------------------

# void ggml_log_get(ggml_log_callback * log_callback, void ** user_data);
_log_get = function("ggml_log_get", None, ctypes.c_void_p, ctypes.c_void_p)
# void ggml_log_set(ggml_log_callback log_callback, void * user_data);
_log_set = function("ggml_log_set", None, ctypes.c_void_p, ctypes.c_void_p)
# void llama_log_set(ggml_log_callback log_callback, void * user_data);   sets ggml's too
_llama_log_set = function("llama_log_set", None, ctypes.c_void_p, ctypes.c_void_p)


def _log_line(level: int, text: bytes, _user_data: int) -> None:
    _log.log(_LEVELS.get(level, logging.DEBUG), "%s", text.decode("utf-8", "replace").rstrip())


_forward = _LOG_CALLBACK(_log_line)  # lives as long as the module: ggml holds its address


@cache
def forward_log() -> None:
    """Send llama.cpp's log to `logging` from now on. Until then, and once somebody sends it elsewhere afterwards, it
    goes where it is sent: an import of this package does not change that, and only the first model does."""
    _llama_log_set(_forward, None)


def _log_target(get: Callable[..., Any]) -> tuple[int | None, int | None]:
    callback, user_data = ctypes.c_void_p(), ctypes.c_void_p()
    get(ctypes.byref(callback), ctypes.byref(user_data))
    return callback.value, user_data.value


@contextmanager
def _log_forwarded() -> Iterator[None]:
    before = _log_target(_log_get)
    _log_set(_forward, None)
    try:
        yield
    finally:
        _log_set(*before)


def _check_shared() -> None:
    """Each copy of ggml has a log callback of its own, so llama.cpp and what we found must name the same."""
    # void llama_log_get(ggml_log_callback * log_callback, void ** user_data);
    theirs = function("llama_log_get", None, ctypes.c_void_p, ctypes.c_void_p)
    if _log_target(theirs) != _log_target(_log_get):
        raise BackendError(
            "there is a second libggml besides the one of llama.cpp; this build of llama-cpp-python is not supported"
        )


# -- the CPU backend -------------------------------------------------------------------------------------------------

# ggml_backend_dev_t ggml_backend_dev_by_type(enum ggml_backend_dev_type type);
_device_by_type = function("ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)
# ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t device);
_registry_of = function("ggml_backend_dev_backend_reg", ctypes.c_void_p, ctypes.c_void_p)
# void * ggml_backend_reg_get_proc_address(ggml_backend_reg_t reg, const char * name);
_address = function("ggml_backend_reg_get_proc_address", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


def _find_cpu_device() -> int:
    """ggml's CPU device; if its backend is a plugin that is not loaded yet, the best one is loaded."""
    with _log_forwarded():  # the first question to ggml's registry makes each backend print the devices that it finds
        _device_by_type(_DEVICE_TYPE_CPU)
    if not _device_by_type(_DEVICE_TYPE_CPU):
        # void ggml_backend_load_all_from_path(const char * dir_path);
        load = function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
        libraries = Path(llama_cpp._lib._name).parent  # site-packages/llama_cpp/lib
        packages = libraries.parents[1]
        with _log_forwarded():  # it reports what it loads, and this is an import
            for folder in (libraries, packages / "bin", packages / "lib"):  # CMake installs plugins in bin
                load(str(folder).encode())
                if _device_by_type(_DEVICE_TYPE_CPU):
                    break
    device = _device_by_type(_DEVICE_TYPE_CPU)
    if not device:
        raise BackendError("the installed llama-cpp-python's ggml has no CPU backend for this machine")
    return int(device)


def cpu_function(name: str, prototype: Any) -> Any:
    """A function of the CPU backend that ggml's registry hands out by name; None when this build lacks it."""
    address = _address(_registry_of(cpu_device), name.encode())
    return prototype(address) if address else None


class _DlInfo(ctypes.Structure):  # Dl_info (dlfcn.h)
    _fields_ = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]


def _library_of(address: int) -> Path | None:
    """The file of the loaded library in which a function lies."""
    if sys.platform == "win32":
        kernel32 = ctypes.WinDLL("kernel32")
        module, name = ctypes.c_void_p(), ctypes.create_unicode_buffer(32768)
        by_address_without_counting = 0x4 | 0x2
        if not kernel32.GetModuleHandleExW(by_address_without_counting, ctypes.c_void_p(address), ctypes.byref(module)):
            return None
        return Path(name.value) if kernel32.GetModuleFileNameW(module, name, len(name)) else None
    info = _DlInfo()
    try:
        found = ctypes.CDLL(None).dladdr(ctypes.c_void_p(address), ctypes.byref(info))
    except AttributeError:
        return None
    return Path(info.dli_fname.decode()) if found and info.dli_fname else None


_check_shared()
cpu_device: int = _find_cpu_device()
cpu_library: Path | None = _library_of(_address(_registry_of(cpu_device), b"ggml_backend_set_n_threads") or 0)
"""The file that holds the CPU backend."""
if cpu_library is not None:
    _libraries.append(ctypes.CDLL(str(cpu_library)))
