"""What the tests share: tiny checkpoints, made and converted once a run, and the official package's outputs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen3tts_gguf.engine.threads import SPIN_COUNT

os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # as the command line does, before anything imports llama_cpp
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="qwen3tts-tests-")  # not the user's own

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, settings

from qwen3tts_convert import ConvertedPair, convert
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.engine import placement
from qwen3tts_gguf.ggml import devices
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.devices import CPU, Device
from qwen3tts_gguf.ggml.machine import this_machine
from qwen3tts_gguf.ggml.trial import try_buffer_types
from qwen3tts_gguf.model.files import ModelFiles

if TYPE_CHECKING:
    from serving import Running

# The same cases in every run, so that a failure can be repeated; `just fuzz` tries more.
_SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("tests", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("fuzz", max_examples=5_000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("tests")

GOLDEN = Path(__file__).parent / "golden"


def pytest_sessionstart() -> None:
    """Find out with patience which buffer types work, so that a busy machine does not change what the tests compute."""
    try_buffer_types(this_machine(), seconds=120)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """checkpoint(size, model_type, ends) -> folder of a tiny checkpoint in the released layout"""
    made: dict[tuple[str | None, ...], Path] = {}

    def make(size: str = "tiny", model_type: str = "base", ends: str | None = None) -> Path:
        key = (size, model_type, ends)
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / f"{size}-{model_type}"
            made[key] = tiny.write_checkpoint(folder, size=size, model_type=model_type, ends=ends)
        return made[key]

    return make


@pytest.fixture(scope="session")
def pair(checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ConvertedPair]:
    """pair(type, codec_type, size, model_type, ends) -> the converted files, F32 by default"""
    made: dict[tuple[str | None, ...], ConvertedPair] = {}

    def make(
        type: str = "f32",
        codec_type: str = "f32",
        size: str = "tiny",
        model_type: str = "base",
        ends: str | None = None,
    ) -> ConvertedPair:
        key = (type, codec_type, size, model_type, ends)
        if key not in made:
            folder = tmp_path_factory.mktemp("models")
            made[key] = convert(checkpoint(size, model_type, ends), folder, type=type, codec_type=codec_type)
        return made[key]

    return make


@pytest.fixture(scope="session")
def files(pair: Callable[..., ConvertedPair]) -> ModelFiles:
    """The F32 pair of the tiny Base checkpoint, opened."""
    return ModelFiles(pair().talker)


@pytest.fixture(scope="session")
def tts(pair: Callable[..., ConvertedPair]) -> TTS:
    """The same, loaded."""
    return TTS(pair().talker)


@pytest.fixture(scope="module")
def nano() -> Iterator[TTS]:
    """The shipped model, with two lanes."""
    with TTS("nano", n_lanes=2) as model:
        yield model


@pytest.fixture(scope="module")
def server(nano: TTS, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of nano's; for tests that have skipped themselves without the extra `server`."""
    from serving import running

    with running(tmp_path_factory.mktemp("voices"), nano) as running_server:
        yield running_server


@pytest.fixture(scope="session")
def backend() -> Backend:
    return Backend(n_threads=2, placements=("CPU_REPACK",))


@pytest.fixture(scope="module")
def gpu() -> Iterator[Device]:
    """The first GPU, or where there is none the CPU that passes for one: it is treated as a device, to which weights
    and inputs are uploaded, but its memory and its rounding are the CPU's."""
    if len(devices.devices()) > 1:
        yield devices.devices()[1]
        return
    stand_in = Device("StandIn0", "the CPU as a GPU", "GPU", CPU.handle)
    with pytest.MonkeyPatch.context() as patch:
        for module in (devices, placement):
            patch.setattr(module, "devices", lambda: (CPU, stand_in))
        yield stand_in


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """golden(stage) -> the official package's arrays (golden/make_golden.py)"""

    def load(stage: str) -> dict[str, Any]:
        with np.load(GOLDEN / f"{stage}.npz") as arrays:
            return dict(arrays)

    return load


def beginning(tts: TTS, text: str, voice: Voice | None, options: SpeechOptions) -> Any:
    """The first `options.max_frames` frames of a speech, as samples: of random weights, which never end it."""
    with tts.utter(text, voice, options) as utterance:
        utterance.finish()
    return utterance.samples


def relative_error(found: Any, expected: Any) -> float:
    """Largest difference over the largest value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())
