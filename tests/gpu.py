"""The tests of GPUs without a GPU: builds llama-cpp-python for Vulkan, and runs them on Mesa's software device.

    python tests/gpu.py                                   # `just gpu`
    python tests/gpu.py --headers /opt/vulkan/include     # where the system's Vulkan headers are too old
    python tests/gpu.py -- tests/test_gpu.py -k codec     # with these arguments for pytest

Needs cmake, a C++ compiler, glslc, Vulkan's headers of 1.4 and its loader, and Mesa's Vulkan drivers; docs/gpu.md has
the packages of Debian. The first run compiles for some minutes, into build/gpu; later ones only run the tests.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

from qwen3tts_gguf.engine.threads import SPIN_COUNT

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / "build" / "gpu"
PYTHON = ENVIRONMENT / "bin" / "python"
TESTS = ["tests/test_gpu.py", "tests/test_gpu_commands.py"]
FIND = "from qwen3tts_gguf.ggml.devices import devices; print(*(device.description for device in devices()[1:]))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=Path, help="folder that holds vulkan/vulkan.h")
    parser.add_argument("tests", nargs="*", default=TESTS, help="arguments for pytest")
    arguments = parser.parse_args()
    if not PYTHON.exists():
        build(arguments.headers)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "convert")]),
        "GOMP_SPINCOUNT": SPIN_COUNT,
        "GGML_VK_VISIBLE_DEVICES": "0",  # without it ggml leaves devices out that are CPUs
        "GGML_VK_DISABLE_F16": "1",  # where a device has F16, ggml multiplies matrices of F32 in it
    }
    found = subprocess.run([str(PYTHON), "-c", FIND], cwd=ROOT, env=environment, capture_output=True, text=True)
    if not found.stdout.strip():
        print(f"ggml finds no Vulkan device: {found.stderr.strip() or 'are the drivers installed?'}", file=sys.stderr)
        return 1
    print(f"Vulkan device: {found.stdout.strip()}", flush=True)
    command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments.tests]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def build(headers: Path | None) -> None:
    """An environment with this package's own, and llama-cpp-python compiled for Vulkan."""
    options = ["-DGGML_VULKAN=on", *([f"-DVulkan_INCLUDE_DIR={headers.resolve()}"] if headers else [])]
    environment = os.environ | {"CMAKE_ARGS": " ".join(options)}
    version = importlib.metadata.version("llama-cpp-python")
    unfinished = ENVIRONMENT.with_name("gpu-unfinished")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(unfinished)], check=True)
    pip = [str(unfinished / "bin" / "python"), "-m", "pip", "install"]
    compiled = ["--no-cache-dir", "--no-binary", "llama-cpp-python", f"llama-cpp-python=={version}"]
    subprocess.run([*pip, *compiled], check=True, env=environment)
    subprocess.run([*pip, f"{ROOT}[dev]"], check=True)
    unfinished.rename(ENVIRONMENT)


if __name__ == "__main__":
    sys.exit(main())
