# Recipes for development; `just` lists them. Each runs in the active environment: pip install -e '.[dev]'

_default:
    @just --list

# All that CI runs, in a fresh virtual environment
ci:
    bash .ci/run

# The tests every change must pass
test *arguments:
    python -m pytest {{arguments}}

# The tests in a fresh environment of another Python, which must be installed: just python 3.13
python version:
    python{{version}} -m venv build/python-{{version}}
    build/python-{{version}}/bin/pip install --quiet '.[dev]'
    build/python-{{version}}/bin/python -m pytest

# The full-geometry tests; CHECKPOINTS holds random-weight checkpoints 0.6b-base and 1.7b-base (CONTRIBUTING.md)
slow checkpoints:
    QWEN3TTS_CHECKPOINTS={{checkpoints}} python -m pytest -m slow

# `batch --ray` on two local nodes, five minutes; needs pip install -e '.[dev,ray]'
ray:
    python -m pytest tests/test_batch_ray.py

# A thousand utterances in one process: memory, threads and open files stay as they were
soak:
    python -m pytest -s -m soak

# The server by ElevenLabs' client, Pipecat, LiveKit and OpenAI for Node: pip install -e '.[dev-clients]', node, npm
clients:
    python -m pytest -m clients tests/test_real_clients.py

# Make models/nano again, in some three hours; `reference` is the interpreter of the reference environment
nano reference:
    sh models/nano/recipe/make.sh {{reference}} "$(command -v python)"

# Tests on variants of ggml's CPU backend, as other CPUs and compilers have them; the names of some, or all
cpus *variants:
    python tests/cpus.py {{variants}}

# The GPU tests without a GPU, on Mesa's software Vulkan; or arguments for tests/gpu.py
gpu *arguments:
    python tests/gpu.py {{arguments}}

# Build the archives, check them, try the wheel in a bare environment; `repository` is the public address, for links
release repository="":
    python tests/release.py {{repository}}

# Make models/voices again: espeak-ng, a package registry, a few minutes
voices:
    sh models/voices/recipe/make.sh

# Every mutated file: 36,000 for the readers, 1,200 loaded and made to speak, 5,000 of each structure
fuzz:
    python -m pytest -s -m slow tests/test_fuzz.py
    python -m pytest --hypothesis-profile=fuzz --hypothesis-seed=1 tests/test_hostile_structure.py

# What people bring, through the command line; FOLDER holds make_clips.py and make_checkpoints.py
field folder:
    python benchmarks/field.py {{folder}}

# Make docs/commands.md again from the help of the commands
help:
    python tests/command_page.py

# Style and types
lint:
    ruff check .
    ruff format --check .
    mypy

# Make the golden files again; `reference` is the interpreter of the reference environment (tests/golden/README.md)
golden reference:
    {{reference}} tests/golden/make_golden.py

# Make the manifest of llama.cpp's own converter again
manifest reference llama_cpp:
    {{reference}} tests/golden/make_manifest.py {{llama_cpp}}
