"""The one libggml of this process: the instance llama.cpp already runs on.

llama-cpp-python's wheel holds several copies of each library; loading one by path would give a second ggml with state
of its own. Symbols are therefore looked up through the handle of the loaded libllama, which reaches its dependencies
(dlsym on Linux and macOS), or through the already loaded modules (Windows), and `_check_shared` proves that a setting
made through llama.cpp is visible through what we found.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp

from ..errors import BackendError

__all__ = ["function"]

_log = logging.getLogger("qwen3tts_gguf.ggml")

_WINDOWS_MODULES = ("ggml-base.dll", "ggml-cpu.dll", "ggml.dll")
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}  # ggml_log_level; INFO is chatter


def _open_libraries() -> list[ctypes.CDLL]:
    libllama = llama_cpp._lib  # the only name llama-cpp-python gives the handle
    if sys.platform == "win32":
        return [ctypes.CDLL(name) for name in _WINDOWS_MODULES]  # LoadLibrary by name finds the loaded module
    # A second view of the same handle, so that our prototypes and llama-cpp-python's do not meet.
    return [ctypes.CDLL(libllama._name, handle=libllama._handle)]


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


def _log_line(level: int, text: bytes, _user_data: int) -> None:
    _log.log(_LEVELS.get(level, logging.DEBUG), "%s", text.decode("utf-8", "replace").rstrip())


_forward_log = _LOG_CALLBACK(_log_line)  # kept: llama.cpp holds its address


def _check_shared() -> None:
    """Route llama.cpp's log to `logging`, and read the setting back through ggml."""
    llama_cpp.llama_log_set(_forward_log, ctypes.c_void_p(0))
    callback, user_data = ctypes.c_void_p(), ctypes.c_void_p()
    function("ggml_log_get", None, ctypes.c_void_p, ctypes.c_void_p)(ctypes.byref(callback), ctypes.byref(user_data))
    if callback.value != ctypes.cast(_forward_log, ctypes.c_void_p).value:
        raise BackendError("found a second libggml beside llama.cpp's; this build of llama-cpp-python is not supported")


_check_shared()
