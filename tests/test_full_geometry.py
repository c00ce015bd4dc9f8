"""On checkpoints of the released size: `just slow FOLDER` with 0.6b-base and 1.7b-base in it (CONTRIBUTING.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import beginning
from test_talker_lanes import TYPES, Speech, alone, equal, in_company

from qwen3tts_convert import ConvertedPair, convert
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.engine.forced import teacher_forced
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.devices import Device
from qwen3tts_gguf.measure.agreement import cosine, snr_db
from qwen3tts_gguf.model.files import MmprojFile, TalkerFile
from qwen3tts_gguf.nets.codec_decoder import CodecDecoder
from qwen3tts_gguf.nets.talker import Talker

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def large_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ConvertedPair]:
    checkpoints = os.environ.get("QWEN3TTS_CHECKPOINTS")
    if not checkpoints:
        pytest.skip("QWEN3TTS_CHECKPOINTS names no folder of checkpoints")
    out = tmp_path_factory.mktemp("large")
    made: dict[tuple[str, str, str], ConvertedPair] = {}

    def make(size: str, type: str, codec_type: str = "f16") -> ConvertedPair:
        key = (size, type, codec_type)
        if key not in made:
            folder = Path(checkpoints) / f"{size}-base"
            made[key] = convert(folder, out, type=type, codec_type=codec_type, name=f"{size}-{codec_type}")
        return made[key]

    return make


@pytest.mark.parametrize("size", ["0.6b", "1.7b"])
@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_converted_model_speaks_sixty_frames(large_pair: Callable[..., ConvertedPair], size: str, type: str) -> None:
    tts = TTS(large_pair(size, type).talker)
    samples = beginning(tts, TEXT, None, SpeechOptions(language="english", max_frames=60, seed=1))
    assert samples.shape == (60 * 1920,)
    assert np.isfinite(samples).all()
    assert 0.01 < samples.std() < 1


def test_converting_the_larger_model_stays_below_two_gigabytes(tmp_path: Path) -> None:
    checkpoint = Path(os.environ.get("QWEN3TTS_CHECKPOINTS", "")) / "1.7b-base"
    program = (  # VmHWM, not ru_maxrss: a child starts with its parent's peak there
        "import re, sys; from qwen3tts_convert import convert; convert(sys.argv[1], sys.argv[2], type='q4_k_m');"
        "print(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(checkpoint), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 2e9


def test_f16_codec_stays_close_to_f32(large_pair: Callable[..., ConvertedPair]) -> None:
    codes = np.random.RandomState(0).randint(0, 2048, (20, 16))
    waveforms = []
    for codec_type in ("f32", "f16"):
        decoder = CodecDecoder(MmprojFile(large_pair("0.6b", "q4_0", codec_type).mmproj), Backend(n_threads=2))
        waveforms.append(*decoder.decode([(decoder.new_state(), codes)]))
    exact, rounded = waveforms
    snr_db = 10 * np.log10(np.sum(exact**2) / np.sum((exact - rounded) ** 2))
    assert snr_db > 45  # 53 dB on random weights


@pytest.mark.parametrize("type", TYPES)
def test_other_sequences_and_threads_change_no_bit_of_the_talker(
    large_pair: Callable[..., ConvertedPair], type: str
) -> None:
    talker = Talker(TalkerFile(large_pair("0.6b", type).talker), 2)
    speeches = [Speech(n, frames, seed) for seed, (n, frames) in enumerate([(90, 310), (5, 120), (560, 60), (230, 40)])]
    expected = [alone(talker, speech) for speech in speeches]
    found, n_most = in_company(talker, speeches, seed=0)
    assert [equal(a, b) for a, b in zip(found, expected, strict=True)] == [True] * len(speeches)
    assert n_most >= 3
    talker.close()


def test_a_device_computes_ten_frames_as_the_cpu_does(gpu: Device, large_pair: Callable[..., ConvertedPair]) -> None:
    """On a GPU with `just gpu -- -m slow tests/test_full_geometry.py -k device`, else the CPU passes for one."""
    path = large_pair("0.6b", "q8_0").talker
    options = SpeechOptions(language="english", seed=1, greedy=True, max_frames=10, endless=True)
    with TTS(path) as cpu, cpu.utter(TEXT, None, options) as utterance:
        utterance.finish()
        expected = teacher_forced(cpu.engine, cpu.request(TEXT, None, options), utterance.codes)
    with TTS(path, device="gpu") as tts:
        assert set(tts.placement.values()) == {gpu.name}
        found = teacher_forced(tts.engine, tts.request(TEXT, None, options), utterance.codes)
    for name in ("hidden", "logits", "predictor_logits"):
        assert cosine(getattr(found, name), getattr(expected, name)).min() > 0.999, name
    assert snr_db(found.samples, expected.samples) > 45


def test_our_pair_speaks_in_llama_cpps_own_pipeline(large_pair: Callable[..., ConvertedPair]) -> None:
    made = large_pair("0.6b", "q8_0")
    program = [sys.executable, str(ROOT / "benchmarks" / "llama_pipeline.py"), str(made.talker), str(made.mmproj)]
    done = subprocess.run([*program, "--frames", "20", "--plain-buffers"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["samples"] == 20 * 1920


@pytest.mark.parametrize("type", ["q8_0", "q4_0", "q4_k_m"])
def test_other_speeches_change_no_speech_of_four_hundred_frames(
    large_pair: Callable[..., ConvertedPair], type: str
) -> None:
    """One of 400 frames, past 400 positions, next to three that come and go; codes and samples bit for bit."""
    long = SpeechOptions(language="english", max_frames=400, seed=1, endless=True)
    with TTS(large_pair("0.6b", type).talker, n_threads=2, n_lanes=4) as tts:

        def generate(text: str, options: SpeechOptions) -> tuple[bytes, bytes]:
            with tts.utter(text, Voice(), options) as utterance:
                utterance.finish()
            return utterance.codes.tobytes(), utterance.samples.tobytes()

        alone = generate(TEXT, long)
        found: list[tuple[bytes, bytes]] = []
        main = threading.Thread(target=lambda: found.append(generate(TEXT, long)))

        def visit(seed: int) -> None:
            while main.is_alive():
                seed += 3
                generate("word " * (1 + seed % 40), SpeechOptions(max_frames=20 + seed % 50, seed=seed, endless=True))

        visitors = [threading.Thread(target=visit, args=(seed,)) for seed in range(3)]
        main.start()
        for visitor in visitors:
            visitor.start()
        for thread in (main, *visitors):
            thread.join()
    assert found == [alone]


def test_a_long_text_takes_the_memory_it_needs(large_pair: Callable[..., ConvertedPair]) -> None:
    """4,000 letters at q8_0, in a process of its own: below 1.3 GB before the first frame."""
    program = (
        "import re, sys; from qwen3tts_gguf import TTS, SpeechOptions, Voice\n"
        "tts = TTS(sys.argv[1], n_threads=2)\n"
        "options = SpeechOptions(seed=1, max_frames=2, endless=True)\n"
        "next(iter(tts.utter('The keeper waits. ' * 222, Voice(), options)))\n"
        "print(re.search(r'VmRSS:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(large_pair("0.6b", "q8_0").talker)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) * 1024 < 1.3e9
