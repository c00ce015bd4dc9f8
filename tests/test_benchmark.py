"""`qwen3tts bench` and what it measures."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, Voice
from qwen3tts_gguf.cli import app
from qwen3tts_gguf.engine.plan import Plan
from qwen3tts_gguf.errors import Error, OptionError
from qwen3tts_gguf.measure.benchmark import FRAME_PARTS, Report, measure
from qwen3tts_gguf.measure.machine import machine_facts
from qwen3tts_gguf.nets.sampling import TalkerSampler
from qwen3tts_gguf.tts import SpeechOptions

Pair = Callable[..., ConvertedPair]


@pytest.fixture(scope="module")
def model(pair: Pair) -> Path:
    return pair().talker


@pytest.fixture(scope="module")
def report(model: Path) -> Report:
    return measure(model, n_threads=1, n_frames=5)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "--threads", "1", *map(str, arguments)])


# -- what is measured ------------------------------------------------------------------------------------------------


def test_the_report_is_plain_data_and_all_there(report: Report) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report) == {
        "format", "runtime", "model", "voice", "layout", "threads", "side_by_side", "machine", "versions", "frames",
        "plan", "placement", "amx_lost", "notes", "company",
        "audio_seconds", "load_seconds", "voice_seconds", "prefill", "work_seconds", "rtf", "streamed", "frame_ms",
        "first_audio", "peak_rss_gb", "long_run",
    }  # fmt: skip
    assert set(report["frame_ms"]) == {*FRAME_PARTS, "whole"}
    assert report["threads"] == 1 and report["model"]["kind"] == "base"
    assert report["model"]["types"] == {part: ["F32"] for part in ("token table", "talker", "predictor", "codec")}
    assert report["voice"] == {"kind": "the model's own choice", "reference_frames": 0}
    assert report["frames"] == 5 and report["audio_seconds"] == pytest.approx(0.4)
    assert report["long_run"] is None


def test_times_are_positive_and_add_up(report: Report) -> None:
    parts = report["frame_ms"]
    for part in ("talker", "predictor", "codec", "whole"):
        assert 0 < parts[part]["p10"] <= parts[part]["median"] <= parts[part]["p90"]
    # The engine works ahead of the reader, who may wait less for a frame than its parts take.
    assert sum(parts[part]["mean"] for part in FRAME_PARTS) >= parts["whole"]["mean"] * (1 - 1e-9)
    assert report["prefill"]["positions"] > 5 and report["prefill"]["ms"] > 0
    assert report["rtf"] == report["work_seconds"] / report["audio_seconds"]
    # 4 of its 5 frames and the prefill are known; the rest is the first frame and the prompt
    streamed = report["streamed"]
    assert streamed["rtf"] == streamed["work_seconds"] / report["audio_seconds"]
    assert streamed["work_seconds"] > (4 * parts["whole"]["mean"] + report["prefill"]["ms"]) / 1000
    first = report["first_audio"]
    assert min(first["warm_all_ms"]) <= first["warm_ms"] <= max(first["warm_all_ms"])


@pytest.mark.skipif(sys.platform != "linux", reason="from /proc")
def test_linux_reports_the_age_and_the_memory_of_the_process(report: Report) -> None:
    assert report["first_audio"]["start"] == "process creation"
    assert 0 < report["first_audio"]["from_start_seconds"] < 1e6
    assert 0.01 < report["peak_rss_gb"] < report["machine"]["memory_gb"]
    assert report["machine"]["cpu"]


def test_an_end_of_speech_does_not_end_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    eos = TTS(model, n_threads=1).vocabulary.codec.eos
    choose = TalkerSampler.choose

    def tired(sampler: TalkerSampler, logits: NDArray[np.float32]) -> int:
        logits[eos] = 1e6
        return choose(sampler, logits)

    monkeypatch.setattr(TalkerSampler, "choose", tired)
    assert len(TTS(model, n_threads=1).speak("Hello.", options=SpeechOptions(seed=0))) == 2 * 1920
    assert measure(model, n_threads=1, n_frames=6)["frames"] == 6  # would run out of frames otherwise


def test_long_runs_compare_early_and_late_frames(model: Path) -> None:
    long = measure(model, n_threads=1, n_frames=200)["long_run"]
    assert long["frame_100_ms"] > 0 and long["ratio"] == long["last_ms"] / long["frame_100_ms"]


@pytest.mark.parametrize(("kind", "voice"), [("custom_voice", "preset"), ("voice_design", "description")])
def test_every_kind_of_model_is_measured_in_its_own_voice(pair: Pair, kind: str, voice: str) -> None:
    report = measure(pair(model_type=kind).talker, n_threads=1, n_frames=2)
    assert report["model"]["kind"] == kind and report["voice"]["kind"] == voice


def test_a_voice_in_context_lengthens_the_prompt(model: Path, report: Report) -> None:
    voice = Voice(codes=np.zeros((12, 16), np.int32), transcript="The words of the clip.")
    cloned = measure(model, n_threads=1, n_frames=2, choose_voice=lambda _: voice)
    assert cloned["voice"] == {"kind": "in context", "reference_frames": 12}
    assert cloned["prefill"]["positions"] > report["prefill"]["positions"] + 12
    assert 0 < report["prefill"]["reused"] < cloned["prefill"]["reused"] < cloned["prefill"]["positions"]
    stepwise = measure(model, n_threads=1, n_frames=2, layout="stepwise", choose_voice=lambda _: voice)
    assert stepwise["layout"] == "stepwise" and stepwise["prefill"]["positions"] < cloned["prefill"]["positions"]


def test_one_frame_is_too_few(model: Path) -> None:
    with pytest.raises(OptionError, match="at least 2 frames"):
        measure(model, n_frames=1)


def test_features_are_reported_by_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    line = b"CUDA : ARCHS = 890 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | "
    monkeypatch.setattr("qwen3tts_gguf.measure.machine.function", lambda *_: lambda: line)
    assert machine_facts()["features"] == {"CUDA": ["ARCHS=890", "USE_GRAPHS"], "CPU": ["SSE3", "AVX2", "REPACK"]}


# -- the command -----------------------------------------------------------------------------------------------------


def test_bench_prints_a_table_and_saves_the_report(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = bench("--model", model, "--frames", 3, "--json", file)
    assert done.exit_code == 0, done.exception
    for word in ("prefill", "first sound, warm", "peak memory", "talker", "predictor", "codec", "other", "RTF"):
        assert word in done.stdout
    assert done.stderr == ""
    assert json.loads(file.read_text("utf-8"))["frames"] == 3


def test_json_on_stdout_is_all_there_is(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qwen3tts_gguf", "bench", "--model", model, "--frames", "2", "--json", "-"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    report = json.loads(done.stdout)
    assert report["frames"] == 2 and done.stderr == ""
    assert report["first_audio"]["from_start_seconds"] > report["load_seconds"]


def test_bench_prints_the_plan_with_what_was_changed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN3TTS_AMX", "off")
    done = bench("--model", model, "--frames", 2, "--plan", "talker=plain,predictor=plain")
    assert done.exit_code == 0
    entries = dict(line.split(maxsplit=1) for line in done.output.split("\nplan")[1].splitlines()[1:8])
    assert {"row", "buffers", "talker", "predictor", "codec", "threads", "lanes"} == set(entries)
    assert (entries["talker"].strip(), entries["predictor"].strip()) == ("plain", "plain")
    assert "This CPU has AMX" not in done.output


@pytest.mark.parametrize("lost", [False, True])
def test_bench_prints_the_command_that_gives_lost_amx_back(
    model: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    for_machine = Plan.for_machine
    monkeypatch.setattr(Plan, "for_machine", lambda *arguments: replace(for_machine(*arguments), amx_lost=lost))
    monkeypatch.delenv("QWEN3TTS_AMX", raising=False)
    done = bench("--model", model, "--frames", 2)
    assert ('CXXFLAGS="-fno-tree-dse -fno-dse" pip install' in done.output) == lost
    assert max(len(line) for line in done.output.partition("This CPU has AMX")[2].splitlines()[:5] or [""]) <= 80


@pytest.mark.parametrize(
    ("setting", "plan", "message"),
    [
        ("maybe", "", "amx is one of auto, on, rows, off, not 'maybe'"),
        ("auto", "color=red", "the plan has no entry 'color=red'"),
    ],
)
def test_bench_refuses_a_plan_that_does_not_exist(
    model: Path, monkeypatch: pytest.MonkeyPatch, setting: str, plan: str, message: str
) -> None:
    monkeypatch.setenv("QWEN3TTS_AMX", setting)
    done = bench("--model", model, "--frames", 2, "--plan", plan)
    assert isinstance(done.exception, OptionError) and message in str(done.exception)


def test_bench_with_a_clip(model: Path, tmp_path: Path) -> None:
    import soundfile

    clip = tmp_path / "ref.wav"
    soundfile.write(clip, 0.1 * np.sin(np.arange(24_000) / 20), 24_000)
    file = tmp_path / "bench.json"
    done = bench("--model", model, "--frames", 2, "--voice", clip, "--ref-text", "Hum.", "--json", file, "--quiet")
    assert done.exit_code == 0, done.exception
    report = json.loads(file.read_text("utf-8"))
    assert report["voice"]["kind"] == "in context" and report["voice"]["reference_frames"] > 12
    assert "frames of reference" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "frame.txt"), "pictures can only be saved as .png or .svg"),
        (("--plot", "nowhere/frame.png"), "there is no folder nowhere"),
        (("--json", "nowhere/bench.json"), "there is no folder nowhere"),
        (("--ref-text", "Words."), "give the clip with --voice"),
        (("--model", "nowhere.gguf"), "nowhere.gguf: no such file"),
    ],
)
def test_errors_in_one_line(model: Path, arguments: tuple[str, ...], message: str) -> None:
    done = bench("--model", model, "--frames", 2, *arguments)
    assert isinstance(done.exception, Error) and message in str(done.exception)
    assert "\n" not in str(done.exception) and done.stdout == ""


def test_a_picture_without_matplotlib_names_the_command(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = bench("--model", model, "--plot", "frame.png")
    assert isinstance(done.exception, OptionError)
    assert str(done.exception) == "--plot needs matplotlib: pip install 'qwen3tts-gguf[plot]'"


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `plot`")
@pytest.mark.parametrize(("name", "start"), [("frame.png", b"\x89PNG"), ("frame.svg", b"<?xml")])
def test_the_picture(model: Path, tmp_path: Path, name: str, start: bytes) -> None:
    done = bench("--model", model, "--frames", 2, "--plot", tmp_path / name)
    assert done.exit_code == 0, done.exception
    assert (tmp_path / name).read_bytes().startswith(start)
