"""Devices and placements, with GPUs that are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS
from qwen3tts_gguf.cli import app
from qwen3tts_gguf.engine import placement
from qwen3tts_gguf.engine.placement import load_on, place, require_device
from qwen3tts_gguf.errors import DeviceError, OptionError
from qwen3tts_gguf.ggml import api
from qwen3tts_gguf.ggml import devices as ggml_devices
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.devices import CPU, Device
from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.model.footprint import NETS, device_bytes
from qwen3tts_gguf.nets import talker

INTEGRATED = Device("Vulkan0", "a small one", "integrated GPU", 0)
CARD = Device("CUDA0", "a large one", "GPU", 0)
SECOND = Device("CUDA1", "another", "GPU", 0)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """gpus(*devices, free=...) puts GPUs into this machine."""

    def put(*found: Device, free: dict[str, int] | None = None) -> None:
        for module in (ggml_devices, placement):
            monkeypatch.setattr(module, "devices", lambda: (CPU, *found))
        monkeypatch.setattr(Device, "memory", lambda device: ((free or {}).get(device.name, 1 << 40), 1 << 40))

    return put


def test_a_gpu_before_an_integrated_one(gpus: Callable[..., None], files: ModelFiles) -> None:
    gpus(INTEGRATED, CARD)
    assert place("gpu", files).devices == dict.fromkeys(NETS, CARD)
    assert place("AUTO", files).devices == dict.fromkeys(NETS, CARD)
    assert place("vulkan0", files).devices == dict.fromkeys(NETS, INTEGRATED)
    assert require_device("auto") is CARD and require_device("cpu") is CPU
    gpus(INTEGRATED)
    assert place("gpu", files).devices == dict.fromkeys(NETS, INTEGRATED)
    assert place("auto", files).devices == dict.fromkeys(NETS, CPU)


def test_auto_passes_over_a_full_gpu_and_reports_it(gpus: Callable[..., None], files: ModelFiles) -> None:
    gpus(CARD, SECOND, free={"CUDA0": 1})
    chosen = place("auto", files)
    assert chosen.devices == dict.fromkeys(NETS, SECOND) and chosen.falls_back
    gpus(CARD, free={"CUDA0": 1})
    chosen = place("auto", files)
    assert chosen.devices == dict.fromkeys(NETS, CPU) and "CUDA0" in chosen.notes[0].message
    with pytest.raises(DeviceError, match=r"CUDA0 has 0\.0 GB free"):
        place("gpu", files, check_memory=True)
    assert place("gpu", files).devices == dict.fromkeys(NETS, CARD)  # not checked


def test_unknown_memory_is_no_reason_to_refuse(gpus: Callable[..., None], files: ModelFiles) -> None:
    gpus(CARD, free={"CUDA0": 0})
    assert place("auto", files).devices == dict.fromkeys(NETS, CARD)
    assert place("gpu", files, check_memory=True).devices == dict.fromkeys(NETS, CARD)


def test_nets_are_placed_one_by_one(gpus: Callable[..., None], files: ModelFiles) -> None:
    gpus(CARD)
    chosen = place("talker=gpu, codec=cuda0", files)
    assert chosen.entries() == {"talker": "CUDA0", "predictor": "CPU", "codec": "CUDA0", "encoders": "CPU"}
    for wrong in ("vocoder=gpu", "talker=gpu,codec"):
        with pytest.raises(OptionError, match="talker, predictor, codec, encoders"):
            place(wrong, files)


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(
    gpus: Callable[..., None], files: ModelFiles
) -> None:
    gpus(CARD)
    with pytest.raises(OptionError, match="CPU, CUDA0"):
        place("Vulkan0", files)
    gpus()
    for none in ("gpu", "talker=gpu"):
        with pytest.raises(OptionError, match="finds no GPU"):
            place(none, files)
    assert place("auto", files).devices == dict.fromkeys(NETS, CPU) and not place("auto", files).notes


def test_a_net_moves_for_an_operation_and_for_memory_only_with_auto(
    gpus: Callable[..., None], files: ModelFiles
) -> None:
    gpus(CARD)
    lacking, full = DeviceError("CUDA0 cannot compute TOP_K", operation="TOP_K"), DeviceError("CUDA0: no memory")
    moved = place("gpu", files).moved("predictor", lacking)
    assert moved.entries() == {**dict.fromkeys(NETS, "CUDA0"), "predictor": "CPU (CUDA0 cannot compute TOP_K)"}
    assert [note.message for note in moved.notes] == ["the CPU computes the predictor: CUDA0 cannot compute TOP_K"]
    with pytest.raises(DeviceError, match="no memory"):
        moved.moved("codec", full)
    assert place("auto", files).moved("codec", full).devices["codec"] is CPU


def test_auto_takes_the_cpu_where_a_device_does_not_start(
    gpus: Callable[..., None], pair: Callable[..., ConvertedPair], tts: TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(CARD)  # without a handle, so that nothing native can start it
    start, load = api.backend_dev_init, talker.load_model

    def load_model(file: Any, config: Any, placed: Any, device: Device) -> Any:
        if not device.is_cpu:
            raise DeviceError("CUDA0 takes no weights")
        return load(file, config, placed, device)

    monkeypatch.setattr(api, "backend_dev_init", lambda handle, text: start(handle, text) if handle else None)
    monkeypatch.setattr(talker, "load_model", load_model)
    with TTS(pair().talker, device="auto") as fallen_back:
        clip = np.sin(np.arange(24_000, dtype=np.float32) / 20)
        voice = fallen_back.voice_encoder.encode(clip)
        assert np.array_equal(voice.speaker, tts.voice_encoder.encode(clip).speaker)
        assert len(fallen_back.decode(np.zeros((2, 16), np.int32))) == 2 * 1920
        assert all(where.startswith("CPU (") for where in fallen_back.placement.values())
        assert len(fallen_back.notes) == len(NETS) and voice.notes[-1] == fallen_back.notes[-1]
        backend, notes = load_on("auto", lambda device: Backend(1, device=device))
        assert backend.device is CPU and "cannot start" in notes[0].message
    for load_it in (lambda: TTS(pair().talker, device="gpu"), lambda: load_on("gpu", lambda d: Backend(1, device=d))):
        with pytest.raises(DeviceError, match="CUDA0"):
            load_it()


def test_what_a_device_must_hold_is_the_sum_of_its_nets(files: ModelFiles) -> None:
    room = device_bytes(files, ["codec"]) - sum(
        info.n_bytes for name, info in files.mmproj.file.tensors.items() if name.startswith("a.gen.wav")
    )
    parts = sum(device_bytes(files, [net]) - room for net in NETS)
    assert room > 0 and device_bytes(files, NETS) == parts + room and device_bytes(files, []) == 0


def test_the_cpu_is_the_default(tts: TTS) -> None:
    assert tts.placement == dict.fromkeys(NETS, "CPU") and not tts.notes


def test_devices_lists_the_cpu_first() -> None:
    result = CliRunner().invoke(app, ["devices", "--json"])
    first, *_ = json.loads(result.stdout)
    assert result.exit_code == 0 and (first["name"], first["kind"]) == ("CPU", "CPU") and first["total_bytes"] > 0


def test_the_list_without_a_gpu_names_the_page_on_gpus(
    gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus()
    assert "docs/gpu.md" in CliRunner().invoke(app, ["devices"]).stdout
    gpus(CARD, free={"CUDA0": 0})
    lines = CliRunner().invoke(app, ["devices"]).stdout.splitlines()
    assert ["CUDA0", "GPU", "1099.5", "GB", "unknown", "a", "large", "one"] in [line.split() for line in lines]


def test_a_gpu_that_is_asked_for_and_is_not_there_is_one_line(
    gpus: Callable[..., None], pair: Callable[..., ConvertedPair]
) -> None:
    gpus()
    result = CliRunner().invoke(app, ["speak", "Hello.", "-m", str(pair().talker), "--device", "gpu"])
    assert isinstance(result.exception, OptionError) and "finds no GPU" in str(result.exception)
