"""What the packages offer by name, and what importing them costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import qwen3tts_convert
import qwen3tts_gguf

PACKAGES = (qwen3tts_gguf, qwen3tts_convert)
MODULES = [
    module.name for package in PACKAGES for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
] + [package.__name__ for package in PACKAGES]
# Whatever takes long to load or brings a native library along.
HEAVY = {"llama_cpp", "tokenizers", "soundfile", "soxr", "gguf", "safetensors", "huggingface_hub", "torch"}


def in_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions, each by name: ruff's order of `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("name", MODULES)
def test_all_resolves_and_is_sorted(name: str) -> None:
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert list(names) == sorted(set(names), key=in_order)
    missing = [each for each in names if not hasattr(module, each)]
    assert not missing


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"{package.__name__}.*no_such_name"):
        package.no_such_name  # noqa: B018


def test_dir_lists_the_public_names() -> None:
    assert set(dir(qwen3tts_gguf)) >= set(qwen3tts_gguf.__all__)


def test_every_error_is_public_and_one_of_ours() -> None:
    from qwen3tts_gguf import errors

    for name in errors.__all__:
        base = {"Note": object}.get(name, errors.Error)
        assert issubclass(getattr(errors, name), base)
        assert getattr(qwen3tts_gguf, name) is getattr(errors, name)


@pytest.mark.parametrize("module", ["qwen3tts_gguf", "qwen3tts_convert", "qwen3tts_gguf.cli", "qwen3tts_gguf.errors"])
def test_importing_loads_no_native_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    paths = ":".join(path for path in sys.path if path)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": paths}
    )
    assert run.stdout.split() == []
