"""The tests on other CPUs' kernels: builds variants of ggml's CPU backend, and runs the tests on each.

    python tests/cpus.py                        # every variant that this CPU can run: `just cpus`
    python tests/cpus.py avx2 portable          # some of them
    python tests/cpus.py amx -- tests           # with these arguments for pytest, here the whole suite

Needs cmake, a C++ compiler, pip, and the environment the tests run in. Takes the sources of the installed
llama-cpp-python from PyPI, compiles only the backend (half a minute each on two cores; the portable variant is one for
each kind of CPU, some minutes), and puts it into a copy of the package that goes before the installed one. All of it
lies in build/cpus, so the next run compiles nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import llama_cpp

from qwen3tts_gguf.engine.threads import SPIN_COUNT
from qwen3tts_gguf.ggml.machine import this_machine

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "cpus"
NATIVE = ("graph", "layers", "talker", "widths", "predictor_lanes", "codec_decoder", "trial", "plan", "plans")
QUICK = [f"tests/test_{name}.py" for name in NATIVE]
PLAN = """
from qwen3tts_gguf.engine.plan import Plan
entries = Plan.for_this_machine().entries()
print(entries["row"], entries["buffers"], sep=": ")
"""
AVX2 = ["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"))]
AVX512 = [*AVX2, *(f"-DGGML_AVX512{name}=ON" for name in ("", "_VBMI", "_VNNI", "_BF16"))]
SOUND_AMX = "-DCMAKE_CXX_FLAGS=-fno-tree-dse -fno-dse"
"""Without these gcc before 11.5, 12.4, 13.3 and 14 compiles AMX products into a crash (docs/machines.md)."""
PLUGINS = ["-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON", "-DGGML_CPU_ALL_VARIANTS=ON"]
AVX512_FLAGS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vbmi", "avx512_vnni", "avx512_bf16")


@dataclass(frozen=True)
class Variant:
    what: str
    options: list[str] | None  # for cmake; None: as installed
    needs: tuple[str, ...] = ()  # features of the CPU, in Linux's words
    target: str = "ggml-cpu"


VARIANTS = {
    "installed": Variant("as pip installed it", None),
    "avx2": Variant("AVX2 only", AVX2, ("avx2", "fma", "f16c", "bmi2")),
    "avx512": Variant("AVX-512, no AMX", AVX512, AVX512_FLAGS),
    "no-openmp": Variant("ggml's own threads", ["-DGGML_OPENMP=OFF"]),
    "no-repack": Variant("no repacked matrices", ["-DGGML_CPU_REPACK=OFF"]),
    "amx": Variant("AMX by this compiler", [], ("amx_int8",)),
    "amx-sound": Variant("AMX, compiled soundly", [SOUND_AMX], ("amx_int8",)),
    "portable": Variant("a plugin for each CPU", PLUGINS, target="ggml"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help=f"of {', '.join(VARIANTS)}; all by default")
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    names = parser.parse_args(arguments[:cut]).variants or list(VARIANTS)
    if unknown := [name for name in names if name not in VARIANTS]:
        parser.error(f"no variant {unknown[0]}; there are {', '.join(VARIANTS)}")
    print(f"{this_machine().name}, {platform.system()} {platform.machine()}, Python {platform.python_version()}\n")
    failed = False
    for name in names:
        passed, result = try_variant(name, arguments[cut + 1 :] or QUICK)
        failed |= not passed
        print(f"{name:10} {VARIANTS[name].what:22} {result}", flush=True)
    return int(failed)


def try_variant(name: str, tests: Sequence[str]) -> tuple[bool, str]:
    """Whether the tests passed or could not be run, and the line that reports it."""
    variant = VARIANTS[name]
    if missing := [feature for feature in variant.needs if feature not in this_machine().features]:
        return True, f"skipped: this CPU has no {missing[0]}"
    try:
        packages = [] if variant.options is None else [str(with_backend(name, variant))]
    except subprocess.CalledProcessError as error:
        return False, f"not built: {' '.join(error.cmd[:3])} ended with status {error.returncode}"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*packages, str(ROOT), str(ROOT / "convert")]),
        "GOMP_SPINCOUNT": SPIN_COUNT,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    log = WORK / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    shown = subprocess.run([sys.executable, "-c", PLAN], cwd=ROOT, env=environment, capture_output=True, text=True)
    with log.open("w") as output:
        status = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
    last = (log.read_text().strip().splitlines() or ["nothing"])[-1].strip("= ")
    outcome = last if status in (0, 1) else f"ended with status {status}: {last}"
    return status == 0, f"{shown.stdout.strip() or 'no plan':42} {outcome}"


def with_backend(name: str, variant: Variant) -> Path:
    """A folder that holds llama_cpp with this variant of the CPU backend, for the front of the path."""
    packages = WORK / name / "packages"
    if not packages.exists():
        built = build(name, variant)
        unfinished = WORK / name / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        libraries = unfinished / "llama_cpp" / "lib"
        shutil.copytree(Path(llama_cpp.__file__).parent, unfinished / "llama_cpp")
        plugins = [*built.glob("*ggml-cpu-*")]
        exchanged = ["*ggml-cpu*", "libggml.*"] if plugins else ["*ggml-cpu*"]
        for old in [path for pattern in exchanged for path in libraries.glob(pattern)]:
            old.unlink()
        for new in [path for pattern in exchanged for path in built.glob(pattern) if path not in plugins]:
            shutil.copy(new, libraries)
        if plugins:
            (unfinished / "bin").mkdir()  # where pip installs them
            for plugin in plugins:
                shutil.copy(plugin, unfinished / "bin")
        unfinished.rename(packages)
    return packages


def build(name: str, variant: Variant) -> Path:
    """Compile the variant -> the folder with its libraries. Raises CalledProcessError."""
    folder = WORK / name / "build"
    settings = ["BUILD_SHARED_LIBS=ON", "CMAKE_BUILD_TYPE=Release"]
    settings += [f"LLAMA_BUILD_{part}=OFF" for part in ("COMMON", "TOOLS", "EXAMPLES", "TESTS", "SERVER")]
    settings += ["CMAKE_INSTALL_RPATH=$ORIGIN", "CMAKE_BUILD_WITH_INSTALL_RPATH=ON"]
    options = [*(f"-D{setting}" for setting in settings), *(variant.options or [])]
    run("cmake", "-S", str(sources()), "-B", str(folder), *options)
    run("cmake", "--build", str(folder), "--target", variant.target, "--parallel", str(os.cpu_count() or 1))
    return folder / "bin"


def sources() -> Path:
    """llama.cpp's sources, as the installed llama-cpp-python was compiled from them."""
    name = f"llama_cpp_python-{importlib.metadata.version('llama-cpp-python')}"
    if not (WORK / name).exists():
        requirement = name.replace("llama_cpp_python-", "llama-cpp-python==")
        packed = WORK / f"{name}.tar.gz"
        if not packed.exists():
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
            run(*pip, "--dest", str(WORK), requirement)
        with tarfile.open(packed) as archive:
            archive.extractall(WORK / "unpacked", filter="data")
        (WORK / "unpacked" / name).rename(WORK / name)
    return WORK / name / "vendor" / "llama.cpp"


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
