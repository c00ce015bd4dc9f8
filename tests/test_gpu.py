"""Every net on a GPU against the same net on the CPU.

Where ggml finds no GPU, the CPU passes for one (the fixture `gpu`), which tests everything but another device's memory
and rounding; `just gpu` runs them on a device that has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from conftest import relative_error
from domain import words
from evaluate import held_out
from recogniser import edits, hear

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.engine.forced import teacher_forced
from qwen3tts_gguf.errors import DeviceError
from qwen3tts_gguf.ggml import api
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.devices import CPU, Device
from qwen3tts_gguf.ggml.slots import DeviceBlock, copied
from qwen3tts_gguf.measure import benchmark
from qwen3tts_gguf.measure.verdict import Thresholds
from qwen3tts_gguf.measure.verification import compare
from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.nets.code_predictor import CodePredictor
from qwen3tts_gguf.nets.codec_decoder import CodecDecoder
from qwen3tts_gguf.nets.codec_encoder import CodecEncoder
from qwen3tts_gguf.nets.codec_layout import STORED
from qwen3tts_gguf.nets.mel import log_mel
from qwen3tts_gguf.nets.sampling import Sampling
from qwen3tts_gguf.nets.speaker_encoder import SpeakerEncoder

NEAR = 1e-3
"""Largest difference to the CPU over the largest value, at F32."""
TEXT = "seven three nine"
FEW = SpeechOptions(seed=3, greedy=True, max_frames=4)
CLIP = (0.1 * np.random.default_rng(5).standard_normal(24_000)).astype(np.float32)


@pytest.fixture
def gpu_backend(gpu: Device) -> Backend:
    """For one net, which it outlives (`Backend.for_one_graph` says why)."""
    return Backend(1, device=gpu)


@pytest.fixture(scope="module")
def on_gpu(gpu: Device, pair: Callable[..., ConvertedPair]) -> Iterator[TTS]:
    with TTS(pair().talker, device="gpu") as tts:
        yield tts


def codes_of(n_frames: int, files: ModelFiles, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, files.mmproj.decoder.codebook_size, (n_frames, 16))


def spoken(tts: TTS, voice: Voice | None = None, options: SpeechOptions = FEW) -> tuple[Any, Any]:
    with tts.utter(TEXT, voice, options) as utterance:
        utterance.finish()
    return utterance.codes, utterance.samples


# -- net by net --------------------------------------------------------------------------------------------------------


def test_every_net_is_on_the_device(gpu: Device, on_gpu: TTS) -> None:
    assert set(on_gpu.placement.values()) == {gpu.name} and not on_gpu.notes


def test_the_talker_and_the_predictor_compute_what_the_cpu_computes(gpu: Device, on_gpu: TTS, tts: TTS) -> None:
    near = NEAR if gpu.handle != CPU.handle else 2 * NEAR  # llama.cpp's flash attention on the CPU is 1.03e-3 off
    codes, _ = spoken(tts)
    expected, found = (teacher_forced(each.engine, each.request(TEXT, None, FEW), codes) for each in (tts, on_gpu))
    for name, values in vars(expected).items():
        assert relative_error(getattr(found, name), values) < near, name


@pytest.mark.parametrize("n_lanes", [1, 3])
@pytest.mark.parametrize("sampling", [Sampling(draws=False), Sampling(), Sampling(top_k=0, top_p=0.9)])
def test_the_predictor_samples_the_cpu_s_codes(
    gpu_backend: Backend, files: ModelFiles, n_lanes: int, sampling: Sampling
) -> None:
    hidden = np.random.default_rng(1).standard_normal((n_lanes, files.mmproj.predictor.talker_hidden))
    frames = [
        CodePredictor(files.mmproj, backend).predict(
            hidden.astype(np.float32), range(n_lanes), [(sampling, np.random.default_rng(i)) for i in range(n_lanes)]
        )
        for backend in (gpu_backend, Backend(1))
    ]
    for found, expected in zip(*frames, strict=True):
        assert np.array_equal(found.codes, expected.codes)
        assert relative_error(found.embedding, expected.embedding) < NEAR


def test_the_predictor_s_logits_are_near_those_of_the_cpu(gpu_backend: Backend, files: ModelFiles) -> None:
    hidden = np.random.default_rng(2).standard_normal(files.mmproj.predictor.talker_hidden).astype(np.float32)
    codes = codes_of(1, files)[0]
    found, expected = (CodePredictor(files.mmproj, each).logits(hidden, codes) for each in (gpu_backend, Backend(1)))
    assert relative_error(found, expected) < NEAR


def test_the_codec_decodes_streams_and_wholes_alike(gpu_backend: Backend, files: ModelFiles) -> None:
    codes = codes_of(9, files)
    decoder = CodecDecoder(files.mmproj, gpu_backend, STORED)
    [expected] = (cpu := CodecDecoder(files.mmproj, Backend(1))).decode([(cpu.new_state(), codes)])
    [whole] = decoder.decode([(decoder.new_state(), codes)])
    assert relative_error(whole, expected) < NEAR
    states = [decoder.new_state() for _ in range(3)]
    pieces = [decoder.decode([(state, frame[None]) for state in states]) for frame in codes]
    for stream in zip(*pieces, strict=True):
        assert relative_error(np.concatenate(stream), whole) < NEAR


def test_a_primed_codec_continues_like_the_cpu_s(gpu_backend: Backend, files: ModelFiles) -> None:
    reference, codes = codes_of(90, files), codes_of(3, files, seed=1)
    samples = []
    for decoder in (CodecDecoder(files.mmproj, gpu_backend, STORED), CodecDecoder(files.mmproj, Backend(1))):
        state = decoder.prime(reference)
        [first] = decoder.decode([(state.copy(), codes)])
        [again] = decoder.decode([(state, codes)])  # the copy was independent
        assert np.array_equal(first, again)
        samples.append(first)
    assert relative_error(*samples) < NEAR


def test_both_encoders_are_near_those_of_the_cpu(gpu: Device, gpu_backend: Backend, files: ModelFiles) -> None:
    codec = [CodecEncoder(files.mmproj, backend).stages(CLIP) for backend in (gpu_backend, Backend(1))]
    assert files.mmproj.speaker_encoder is not None
    mel = log_mel(CLIP, files.mmproj.speaker_encoder.n_mels)
    speaker = [SpeakerEncoder(files.mmproj, Backend(1, device=device)).stages(mel) for device in (gpu, CPU)]
    for found, expected in (codec, speaker):
        for stage in expected:
            assert relative_error(found[stage], expected[stage]) < NEAR, stage


def test_a_state_is_copied_and_its_memory_is_used_again(gpu_backend: Backend) -> None:
    block = DeviceBlock(gpu_backend, 1000)
    block.set(values := np.arange(1000, dtype=np.float32))
    copy = copied(block)
    block.set(0 * values)
    assert isinstance(copy, DeviceBlock) and np.array_equal(copy.get(), values)
    buffer = block.buffer
    del block
    assert DeviceBlock(gpu_backend, 1000).buffer == buffer
    assert not DeviceBlock(gpu_backend, 1000).get().any()


# -- speaking ----------------------------------------------------------------------------------------------------------


def test_the_device_generates_what_the_cpu_generates(on_gpu: TTS, tts: TTS) -> None:
    (codes, samples), (expected, of_cpu) = spoken(on_gpu), spoken(tts)
    assert np.array_equal(codes, expected)
    assert relative_error(samples, of_cpu) < NEAR


def test_sentences_of_nano_are_recognised_as_on_the_cpu(gpu: Device) -> None:
    """Three that are recognised when the CPU computes. Rounding may change a word in ten."""
    options, voice = SpeechOptions(language="english", seed=1), Voice.shipped("f2")

    def n_errors(tts: TTS, text: str) -> int:
        with tts.utter(text, voice, options) as utterance:
            utterance.finish()
        return edits(words(text), hear(utterance.samples, TTS.sample_rate_hz)) + (not utterance.ended)

    texts = [sentence["text"] for sentence in sorted(held_out(12), key=itemgetter("seconds"))]
    with TTS("nano") as cpu:
        recognised = [text for text in texts if not n_errors(cpu, text)][:3]
    assert len(recognised) == 3
    with TTS("nano", device="gpu") as nano:
        assert sum(n_errors(nano, text) for text in recognised) <= 0.1 * len(words(" ".join(recognised)))


def test_the_same_seed_alone_generates_the_same_again(on_gpu: TTS) -> None:
    options = SpeechOptions(seed=3, max_frames=4)
    assert np.array_equal(spoken(on_gpu, None, options)[1], spoken(on_gpu, None, options)[1])


def test_voices_speak_on_the_device_saved_and_in_context(on_gpu: TTS, tts: TTS, tmp_path: Any) -> None:
    clips = [each.voice_encoder.encode(CLIP, transcript="a clip") for each in (on_gpu, tts)]
    assert relative_error(clips[0].speaker, clips[1].speaker) < NEAR
    assert (clips[0].codes == clips[1].codes).mean() > 0.95  # near ties may fall otherwise
    clips[1].save(tmp_path / "clip.voice")
    saved = Voice.load(tmp_path / "clip.voice")
    for voice in (saved, saved.without_codes()):
        assert np.array_equal(spoken(on_gpu, voice)[0], spoken(tts, voice)[0])


def test_four_lanes_generate_what_each_generates_alone(gpu: Device, pair: Callable[..., ConvertedPair]) -> None:
    """Not promised on a device; greedy codes of these weights are the same."""
    with TTS(pair().talker, device="gpu", n_lanes=4) as tts:
        texts = ["one", "two three", "four five six", "seven eight nine ten"]
        alone = []
        for text in texts:
            with tts.utter(text, None, FEW) as utterance:
                utterance.finish()
            alone.append(utterance.codes)
        together = [tts.utter(text, None, FEW) for text in texts]
        readers = [iter(utterance) for utterance in together]
        for _ in range(FEW.max_frames or 0):
            for reader in readers:
                next(reader)
        for utterance, expected in zip(together, alone, strict=True):
            utterance.finish()
            assert np.array_equal(utterance.codes, expected)


def test_a_cancelled_speech_leaves_the_others_alone(on_gpu: TTS) -> None:
    expected, _ = spoken(on_gpu)
    other = on_gpu.utter(TEXT, None, SpeechOptions(seed=1, max_frames=50, endless=True))
    next(iter(other))
    other.cancel()
    assert np.array_equal(spoken(on_gpu)[0], expected)


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_quantized_models_are_as_near_to_f32_as_verify_allows(
    gpu: Device, pair: Callable[..., ConvertedPair], type: str
) -> None:
    options = SpeechOptions(seed=0, max_frames=4)
    reports = [
        compare(pair(type).talker, pair().talker, texts=[TEXT], options=options, device=device)
        for device in ("cpu", "gpu")
    ]
    cpu, gpu = ({each.split(" ")[0] for each in Thresholds().failures(report)} for report in reports)
    assert gpu <= cpu


def test_a_benchmark_reports_the_devices_and_what_company_changes(
    gpu: Device, pair: Callable[..., ConvertedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    for repeated in ("_N_WARM_UP", "_N_FIRST_AUDIO"):
        monkeypatch.setattr(benchmark, repeated, 1)
    report = benchmark.measure(pair().talker, device="gpu", n_frames=3)
    assert set(report["placement"].values()) == {gpu.name}
    assert report["company"]["frames"] == 3 and 0 <= report["company"]["as_alone"] <= 3


# -- what a device lacks -----------------------------------------------------------------------------------------------


OPERATIONS = (
    "ADD", "ARGMAX", "ARGSORT", "CLAMP", "CONCAT", "CONT", "CPY", "CUMSUM", "ELU", "FLASH_ATTN_EXT", "GELU_ERF",
    "GET_ROWS", "LOG", "MEAN", "MUL", "MUL_MAT", "NORM", "RELU", "RMS_NORM", "ROPE", "SCALE", "SET_ROWS", "SGN",
    "SIGMOID", "SOFT_MAX", "SQR", "SQRT", "STEP", "SUB", "SUM_ROWS", "SWIGLU", "TANH", "TOP_K",
)  # fmt: skip
"""All that the graphs of a model ask a device for."""
REPLACED = ("FLASH_ATTN_EXT", "SWIGLU", "TOP_K")
"""These are put together from other operations."""
COPIES_NOTHING = {"NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE"}


@contextmanager
def recorded() -> Iterator[set[str]]:
    """The operations that a device is asked for meanwhile."""
    asked, supports = set(), Device.supports

    def asking(device: Device, node: int) -> bool:
        asked.add(api.op_desc(node).decode())
        return supports(device, node)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Device, "supports", asking)
        yield asked
    asked -= COPIES_NOTHING


@pytest.fixture(scope="module")
def needs(gpu: Device, pair: Callable[..., ConvertedPair]) -> dict[str, set[str]]:
    """Net -> the operations that it asks a device for. The talker's are llama.cpp's business."""
    needs = {}
    for net in ("predictor", "codec", "encoders"):
        with recorded() as needs[net], TTS(pair().talker, device=f"{net}=gpu") as tts:
            if net == "encoders":
                tts.voice_encoder.encode(CLIP, transcript="a clip")
    return needs


def test_all_operations_are_refused_below(needs: dict[str, set[str]]) -> None:
    assert set().union(*needs.values()) == set(OPERATIONS)


def test_speaking_asks_for_nothing_that_loading_did_not_ask_for(on_gpu: TTS, needs: dict[str, set[str]]) -> None:
    """So no speech ends because its device lacks something."""
    voice = Voice(codes=np.ones((3, 16), np.int32), transcript="one", codec=on_gpu.codec_fingerprint)
    with recorded() as asked:
        readers = [iter(on_gpu.utter(TEXT, each, SpeechOptions(seed=1, max_frames=3))) for each in (voice, Voice())]
        for _ in range(2):
            for reader in readers:
                next(reader)
    assert asked <= needs["predictor"] | needs["codec"]


@pytest.mark.parametrize("refused", OPERATIONS)
def test_a_device_that_lacks_an_operation_still_speaks_right(
    needs: dict[str, set[str]],
    pair: Callable[..., ConvertedPair],
    tts: TTS,
    monkeypatch: pytest.MonkeyPatch,
    refused: str,
) -> None:
    """With the nets on it that ask for the operation."""
    options = SpeechOptions(seed=3, greedy=True, max_frames=2)
    supports, nets = Device.supports, {net for net, operations in needs.items() if refused in operations}

    def without(device: Device, node: int) -> bool:
        return api.op_desc(node).decode() != refused and supports(device, node)

    monkeypatch.setattr(Device, "supports", without)
    with TTS(pair().talker, device=",".join(f"{net}=gpu" for net in nets)) as without_it:
        (codes, samples), expected = spoken(without_it, Voice(), options), spoken(tts, Voice(), options)
        assert np.array_equal(codes, expected[0])
        assert relative_error(samples, expected[1]) < NEAR
        if "encoders" in nets:
            found, on_cpu = without_it.voice_encoder, tts.voice_encoder
            assert relative_error(found.speaker_vector(CLIP), on_cpu.speaker_vector(CLIP)) < NEAR
            assert (found.encode_codes(CLIP) == on_cpu.encode_codes(CLIP)).mean() > 0.95  # near ties may fall otherwise
        moved = {net for net, where in without_it.placement.items() if refused in where}
        assert moved == (set() if refused in REPLACED else nets)
        assert len(without_it.notes) == len(moved) and all(refused in note.message for note in without_it.notes)


def test_without_memory_auto_takes_the_cpu_and_gpu_fails(
    gpu: Device, pair: Callable[..., ConvertedPair], tts: TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(backend: Backend, n_bytes: int) -> int:
        raise backend.no_memory(f"{n_bytes} bytes")

    monkeypatch.setattr(Backend, "reserve", full)
    with TTS(pair().talker, device="auto") as automatic:
        assert automatic.placement["predictor"].startswith("CPU (")
        assert [note.message for note in automatic.notes if "no memory" in note.message]
        assert np.array_equal(spoken(automatic)[0], spoken(tts)[0])
    with pytest.raises(DeviceError, match="no memory"):
        TTS(pair().talker, device="gpu")


def test_a_full_device_is_not_begun_with(
    gpu: Device, pair: Callable[..., ConvertedPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Device, "memory", lambda device: (1 << 20, 1 << 30))
    with pytest.raises(DeviceError, match="GB free"):
        TTS(pair().talker, device="gpu", check_memory=True)
    with TTS(pair().talker, device="auto") as automatic:
        assert set(automatic.placement.values()) == {"CPU"} and len(automatic.notes) == 1


def test_cpu_touches_no_gpu(gpu: Device, pair: Callable[..., ConvertedPair], monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [], Backend.__init__

    def starting(backend: Backend, n_threads: int, placements: Any = (), device: Device = CPU) -> None:
        started.append(device)
        start(backend, n_threads, placements, device)

    monkeypatch.setattr(Backend, "__init__", starting)
    with TTS(pair().talker) as tts:
        spoken(tts)
        tts.voice_encoder.speaker_vector(CLIP)
    assert set(started) == {CPU}
