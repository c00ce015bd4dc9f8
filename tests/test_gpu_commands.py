"""Every command that loads a model, with `--device`: a GPU, or the CPU that passes for one (the fixture `gpu`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import test_cli

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.ggml import api
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.devices import Device

Run = test_cli.Run
run, model = test_cli.run, test_cli.model

GREEDY = ("--greedy", "--max-frames", "2", "--language", "english", "--quiet")


@pytest.fixture
def used(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The devices on which something is computed with ggml, from now on."""
    used, compute = set(), Backend.__init__

    def starting(backend: Backend, n_threads: int, placements: Any = (), device: Device | None = None) -> None:
        compute(backend, n_threads, placements, *([device] if device else []))
        used.add(backend.device.name)

    monkeypatch.setattr(Backend, "__init__", starting)
    return used


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(5).standard_normal(24_000), 24_000)
    return path


def test_devices_lists_it(gpu: Device, run: Run) -> None:
    found = json.loads(run("devices", "--json").out)
    assert [each["name"] for each in found] == ["CPU", gpu.name] and found[1]["total_bytes"] > 0


@pytest.mark.parametrize("name", ["gpu", "auto", "itself"])
def test_speak_on_it_writes_what_the_cpu_writes(gpu: Device, run: Run, model: Path, tmp_path: Path, name: str) -> None:
    for device in ("cpu", gpu.name if name == "itself" else name):
        made = run("speak", "one", "-m", model, "--device", device, "-o", tmp_path / f"{device}.wav", *GREEDY)
        assert made.code == 0 and made.err == ""
    expected, found = (soundfile.read(tmp_path / f"{each}.wav")[0] for each in ("cpu", device))
    assert len(expected) and np.abs(found - expected).max() < 1e-3


def test_speak_names_the_net_that_the_device_cannot_compute(
    gpu: Device, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supports = Device.supports
    monkeypatch.setattr(Device, "supports", lambda d, node: api.op_desc(node) != b"CUMSUM" and supports(d, node))
    made = run("speak", "one", "-m", model, "--device", "gpu", "-o", tmp_path / "out.wav", "--max-frames", "2")
    assert made.code == 0
    assert f"the CPU computes the predictor: {gpu.name} cannot compute CUMSUM" in " ".join(made.err.split())


def test_speak_on_a_full_one_is_one_error_with_what_to_do(
    gpu: Device, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(backend: Backend, n_bytes: int) -> int:
        raise backend.no_memory(f"{n_bytes} bytes")

    monkeypatch.setattr(Backend, "reserve", full)
    failed = run("speak", "one", "-m", model, "--device", "gpu", "-o", tmp_path / "out.wav")
    assert test_cli.is_one_error_line(failed)
    assert "no memory" in failed.err and "--device" in failed.err and not (tmp_path / "out.wav").exists()
    made = run("speak", "one", "-m", model, "--device", "auto", "-o", tmp_path / "out.wav", "--max-frames", "2")
    assert made.code == 0 and "the CPU computes the codec" in " ".join(made.err.split())


def test_read_on_it(used: set[str], gpu: Device, run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("mutagen", reason="needs the extra 'book'")
    (tmp_path / "book.txt").write_text("One. Two.")
    made = run("read", tmp_path / "book.txt", "-m", model, "--device", "gpu", "-o", tmp_path / "book", "--quiet")
    assert made.code == 0 and gpu.name in used
    assert any(path.is_file() for path in (tmp_path / "book").rglob("*"))


def test_a_voice_is_made_on_it(used: set[str], gpu: Device, run: Run, model: Path, clip: Path, tmp_path: Path) -> None:
    options = ("-m", model, "--voices", tmp_path / "voices", "--device", "gpu", "--ref-text", "a clip")
    made = run("voice", "create", "anna", clip, *options)
    assert made.code == 0 and gpu.name in used


def test_codes_are_made_on_it_and_decoded(
    used: set[str], gpu: Device, run: Run, model: Path, clip: Path, tmp_path: Path
) -> None:
    codes, wav = tmp_path / "codes.npy", tmp_path / "decoded.wav"
    assert run("codec", "encode", clip, "-m", model, "-o", codes, "--device", "gpu").code == 0
    assert used == {gpu.name}
    np.save(codes, np.load(codes)[:3])
    assert run("codec", "decode", codes, "-m", model, "-o", wav, "--device", "gpu").code == 0
    assert used == {gpu.name} and soundfile.info(wav).frames == 3 * 1920


def test_codec_takes_the_cpu_for_what_the_device_lacks(
    gpu: Device, run: Run, model: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supports = Device.supports
    monkeypatch.setattr(Device, "supports", lambda d, node: api.op_desc(node) != b"MUL_MAT" and supports(d, node))
    codes, wav = tmp_path / "codes.npy", tmp_path / "decoded.wav"
    for command in (("encode", clip, "-o", codes), ("decode", codes, "-o", wav)):
        made = run("codec", *command, "-m", model, "--device", "gpu", "--quiet")
        assert made.code == 0 and f"{gpu.name} cannot compute MUL_MAT" in " ".join(made.err.split())


def test_verify_on_it(used: set[str], gpu: Device, run: Run, pair: Callable[..., ConvertedPair]) -> None:
    file = pair().talker
    options = ("--device", "gpu", "--max-frames", "2", "--text", "one", "--json", "-")
    report = run("verify", "-m", file, "--against", file, *options)
    assert json.loads(report.out)["frames"] == 2 and used >= {"CPU", gpu.name}


def test_bench_on_it(used: set[str], gpu: Device, run: Run, pair: Callable[..., ConvertedPair]) -> None:
    table = run("bench", "-m", pair().talker, "--frames", "2", "--device", "codec=gpu", "--quiet")
    lines = [line.split() for line in table.out.decode().splitlines()]
    assert table.code == 0 and ["codec", "on", gpu.name] in lines and ["talker", "on", "CPU"] in lines


def test_bench_names_the_net_that_the_cpu_computes_and_why(
    gpu: Device, run: Run, pair: Callable[..., ConvertedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    supports = Device.supports
    monkeypatch.setattr(Device, "supports", lambda d, node: api.op_desc(node) != b"CUMSUM" and supports(d, node))
    table = run("bench", "-m", pair().talker, "--frames", "2", "--device", "gpu", "--quiet")
    lines = [" ".join(line.split()) for line in table.out.decode().splitlines()]
    assert table.code == 0 and f"predictor on CPU ({gpu.name} cannot compute CUMSUM)" in lines


def test_serve_on_it(gpu: Device, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="needs the extra 'server'")
    from starlette.testclient import TestClient

    from qwen3tts_gguf.server import app as server

    answers = []

    def asked_once(app: Any, listener: Any) -> None:
        listener.close()
        with TestClient(app, base_url="http://localhost") as client:
            answers.append(client.post("/v1/audio/speech", json={"input": "one", "response_format": "wav"}))
            answers.append(app.state.services.model.tts.placement)

    monkeypatch.setattr(server, "run", asked_once)
    options = ("-m", model, "--port", "0", "--device", "gpu", "--voices", tmp_path, "--quiet")
    assert run("serve", *options).code == 0
    answer, placement = answers
    assert answer.status_code == 200 and len(answer.content) > 1920 and set(placement.values()) == {gpu.name}
