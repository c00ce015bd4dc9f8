"""The codec encoder against the official one (tests/golden/codec_encoder.npz), and its lengths and edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

from qwen3tts_convert import convert
from qwen3tts_gguf.errors import AudioError
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.model.files import MmprojFile
from qwen3tts_gguf.nets import codec_encoder
from qwen3tts_gguf.nets.codec_encoder import CodecEncoder

Arrays = dict[str, NDArray[Any]]

GOLDEN = Path(__file__).parent / "golden" / "codec_encoder.npz"
LENGTHS = (47_000, 1, 5_760, 7_200, 5_000)  # 7,200 is 0.3 s; only 5,760 is whole frames
MINUTE = 1_440_000
LONG = 278_400  # 290 rows in the transformer, more than its window of 250, which the official encoder ignores
STAGES = ("seanet", "transformer", "downsample")
CLEAR_GAP = 1e-4  # distances differ by less from one float32 implementation to another


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MmprojFile:
    checkpoint = tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoint"), model_type="base", size="tiny")
    return MmprojFile(convert(checkpoint, tmp_path_factory.mktemp("gguf"), type="f32", codec_type="f32").mmproj)


@pytest.fixture(scope="module")
def encoder(model: MmprojFile) -> CodecEncoder:
    return CodecEncoder(model, Backend(2))


@pytest.fixture(scope="module")
def golden() -> Arrays:
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n_samples", LENGTHS)
def test_stage_equals_the_official_one(encoder: CodecEncoder, golden: Arrays, n_samples: int, stage: str) -> None:
    expected = golden[f"{n_samples}.{stage}"]
    rows, columns = golden[f"{n_samples}.{stage}.steps"]
    found = encoder.stages(tiny.reference_clip(n_samples))[stage][::rows, ::columns]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("n_samples", [*LENGTHS, LONG, MINUTE])
def test_codes_equal_the_official_ones(encoder: CodecEncoder, golden: Arrays, n_samples: int) -> None:
    expected, gap = golden[f"{n_samples}.codes"], golden[f"{n_samples}.gap"]
    found = encoder.encode(tiny.reference_clip(n_samples))
    assert found.dtype == np.int32 and found.shape == expected.shape
    # From the first near tie of a frame on, the codes after it may differ with it; the semantic code stands alone.
    clear = gap > CLEAR_GAP
    clear[:, 1:] = np.logical_and.accumulate(clear[:, 1:], axis=1)
    assert np.array_equal(found[clear], expected[clear])
    assert (found == expected).mean() >= 0.999


@pytest.mark.parametrize("n_samples", [1, 2, 959, 960, 961, 1_919, 1_920, 1_921, 15_360, 15_361])
def test_every_started_frame_has_codes(encoder: CodecEncoder, n_samples: int) -> None:
    codes = encoder.encode(tiny.reference_clip(n_samples))
    assert codes.shape == (-(-n_samples // encoder.samples_per_frame), 16)
    assert codes.min() >= 0 and codes.max() < encoder.config.codebook_size


def test_chunks_do_not_show(model: MmprojFile, encoder: CodecEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tiny.reference_clip(47_000)
    monkeypatch.setattr(codec_encoder, "_CHUNK_FRAMES", 1)
    frame_by_frame = CodecEncoder(model, Backend(3)).stages(clip)["seanet"]
    monkeypatch.setattr(codec_encoder, "_CHUNK_FRAMES", 40)
    whole = CodecEncoder(model, Backend(1)).stages(clip)["seanet"]
    for chunked in frame_by_frame, encoder.stages(clip)["seanet"]:
        assert np.abs(chunked - whole).max() <= 1e-5 * np.abs(whole).max()


def test_a_clip_leaves_nothing_behind_for_the_next(encoder: CodecEncoder) -> None:
    short = tiny.reference_clip(5_000)
    before = encoder.encode(short)
    encoder.encode(tiny.reference_clip(47_000))
    assert np.array_equal(encoder.encode(short), before)


def test_frames_depend_on_no_later_sample(encoder: CodecEncoder) -> None:
    clip = tiny.reference_clip(47_000)
    whole, start = (encoder.stages(samples)["projected"] for samples in (clip, clip[: 10 * encoder.samples_per_frame]))
    assert np.abs(start - whole[:10]).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_what_is_no_mono_sound_is_refused(encoder: CodecEncoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError):
        encoder.encode(np.zeros(shape, np.float32))
