"""The codec decoder: chunks and other streams change no sample, wrong codes are refused, F16 stays near F32."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.errors import CodesError
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.measure.agreement import snr_db
from qwen3tts_gguf.model import nano
from qwen3tts_gguf.model.files import MmprojFile, ModelFiles, find_mmproj
from qwen3tts_gguf.nets import codec_layout
from qwen3tts_gguf.nets.codec_decoder import CodecDecoder, CodecState

N_FRAMES = 80  # longer than the window of 72
LAYOUTS = {"F16": codec_layout.F16, "F32": codec_layout.F32, "Q8_0": codec_layout.Q8_0}


@pytest.fixture(scope="module")
def decoder(files: ModelFiles) -> CodecDecoder:
    return CodecDecoder(files.mmproj, Backend(1))


@pytest.fixture(scope="module")
def codes() -> NDArray[np.int32]:
    return np.random.default_rng(5).integers(0, 2048, (N_FRAMES, 16), np.int32)


def decoded(decoder: CodecDecoder, codes: NDArray[Any], state: CodecState | None = None) -> NDArray[np.float32]:
    """One stream alone, from `state` or from the start."""
    [samples] = decoder.decode([(state or decoder.new_state(), codes)])
    return samples


@pytest.fixture(scope="module")
def whole(decoder: CodecDecoder, codes: NDArray[np.int32]) -> NDArray[np.float32]:
    return decoded(decoder, codes)


def test_a_frame_is_1920_samples(decoder: CodecDecoder, whole: NDArray[np.float32]) -> None:
    assert decoder.samples_per_frame == 1920
    assert whole.shape == (N_FRAMES * 1920,) and whole.dtype == np.float32
    assert np.abs(whole).max() <= 1 and np.std(whole) > 0.01


@pytest.mark.parametrize("sizes", [[1] * N_FRAMES, [3, 1, 40, 0, 36], [79, 1], [7] * 11 + [3]], ids=len)
def test_any_chunking_equals_one_pass(
    decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32], sizes: list[int]
) -> None:
    state = decoder.new_state()
    chunks = [decoded(decoder, chunk, state) for chunk in np.split(codes, np.cumsum(sizes)[:-1])]
    assert [len(chunk) for chunk in chunks] == [1920 * size for size in sizes]
    assert np.array_equal(np.concatenate(chunks), whole)
    assert state.n_frames == N_FRAMES


def test_two_interleaved_states_equal_the_separate_ones(
    decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32]
) -> None:
    other = codes[::-1][:10]
    alone = decoded(decoder, other)
    states = decoder.new_state(), decoder.new_state()
    pieces: tuple[list[Any], list[Any]] = ([], [])
    for i in range(5):
        pieces[0].append(decoded(decoder, codes[2 * i : 2 * i + 2], states[0]))
        pieces[1].append(decoded(decoder, other[2 * i : 2 * i + 2], states[1]))
    assert np.array_equal(np.concatenate(pieces[0]), whole[: 10 * 1920])
    assert np.array_equal(np.concatenate(pieces[1]), alone)


def test_a_copied_state_continues_from_the_same_point(
    decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32]
) -> None:
    state = decoder.new_state()
    decoded(decoder, codes[:3], state)
    copy = state.copy()
    assert copy.n_frames == 3
    assert np.array_equal(decoded(decoder, codes[3:5], state), whole[3 * 1920 : 5 * 1920])
    for samples in decoder.decode([(fork, codes[3:5]) for fork in (copy, copy.copy(), copy.copy())]):
        assert np.array_equal(samples, whole[3 * 1920 : 5 * 1920])


@pytest.mark.parametrize("n", [0, 1, 30, 75])
def test_what_follows_a_primed_state_is_what_follows_decoded_frames(
    decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32], n: int
) -> None:
    state = decoder.prime(codes[:n])
    assert state.n_frames == n
    found = decoded(decoder, codes[n : n + 3], state)
    assert np.abs(found - whole[n * 1920 : (n + 3) * 1920]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "layout", "n_threads"),
    [
        ("f32", "F16", 2),
        ("f16", "F16", 1),
        ("f16", "F16", 3),
        ("f16", "F32", 2),
        ("nano", "F16", 2),
        ("nano", "F32", 2),
        ("nano", "Q8_0", 2),
    ],
)
def test_samples_do_not_depend_on_other_streams_chunks_or_threads(
    pair: Callable[..., ConvertedPair], name: str, layout: str, n_threads: int
) -> None:
    """Six streams, more than one graph takes, in random companies and chunks, one of them past the end of the ring."""
    file = MmprojFile(find_mmproj(nano.folder()) if name == "nano" else pair(codec_type=name).mmproj)
    decoder, alone = (CodecDecoder(file, Backend(n), LAYOUTS[layout]) for n in (n_threads, 1))
    rng = np.random.default_rng(n_threads)
    streams = [rng.integers(0, decoder.config.codebook_size, (n, 16)) for n in (N_FRAMES, 24, 22, 20, 18, 9)]
    expected = []
    for stream in streams:
        state = alone.new_state()
        expected.append(np.concatenate([decoded(alone, frame[None], state) for frame in stream]))
    states = [decoder.new_state() for _ in streams]
    pieces: list[list[NDArray[np.float32]]] = [[] for _ in streams]
    while left := [i for i, state in enumerate(states) if state.n_frames < len(streams[i])]:
        company = rng.permutation(left)[: rng.integers(1, len(left) + 1)]
        jobs = [(states[i], streams[i][states[i].n_frames :][: rng.choice([1, 1, 1, 2, 4, 5])]) for i in company]
        for i, samples in zip(company, decoder.decode(jobs), strict=True):
            pieces[i].append(samples)
    for found, samples in zip(pieces, expected, strict=True):
        assert np.array_equal(np.concatenate(found), samples)


def test_samples_depend_on_no_later_frame(
    decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32]
) -> None:
    changed = codes[:6].copy()
    changed[4:] = 0
    samples = decoded(decoder, changed)
    assert np.array_equal(samples[: 4 * 1920], whole[: 4 * 1920])
    assert not np.array_equal(samples[4 * 1920 :], whole[4 * 1920 : 6 * 1920])


def test_two_decoders_of_one_file_are_independent(
    files: ModelFiles, decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32]
) -> None:
    second = CodecDecoder(files.mmproj, Backend(2))
    decoded(decoder, codes[::-1][:2])
    assert np.allclose(decoded(second, codes[:4]), whole[: 4 * 1920], atol=1e-6)


def test_any_kind_of_whole_numbers_will_do(
    decoder: CodecDecoder, codes: NDArray[np.int32], whole: NDArray[np.float32]
) -> None:
    for dtype in (np.int64, np.uint16, np.int16, np.uint64):
        samples = decoded(decoder, codes[:2].astype(dtype))
        assert np.array_equal(samples, whole[: 2 * 1920])
    columns = np.asfortranarray(codes[:2])
    assert np.array_equal(decoded(decoder, columns), whole[: 2 * 1920])


def test_no_frames_are_no_samples(decoder: CodecDecoder) -> None:
    assert decoded(decoder, np.zeros((0, 16), np.int32)).shape == (0,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(16, np.int32), r"integers of shape \[frames, 16\], not int32 \[16\]"),
        (np.zeros((3, 15), np.int32), r"not int32 \[3, 15\]"),
        (np.zeros((1, 3, 16), np.int32), r"not int32 \[1, 3, 16\]"),
        (np.zeros((16, 3), np.int32), r"not int32 \[16, 3\]"),
        (np.zeros((3, 16), np.float32), r"not float32 \[3, 16\]"),
        (np.zeros((3, 16), np.bool_), r"not bool \[3, 16\]"),
        (np.full((3, 16), "1"), "integers of shape"),
        (np.full((3, 16), 2048), r"in 0\.\.2047, found 2048\.\.2048"),
        (np.full((3, 16), -1, np.int8), r"found -1\.\.-1"),
        (np.full((3, 16), 1 << 40), r"in 0\.\.2047"),
        (np.full((3, 16), (1 << 64) - 1, np.uint64), r"in 0\.\.2047"),
    ],
)
def test_what_is_no_codes_is_refused_and_leaves_all_states(
    decoder: CodecDecoder,
    codes: NDArray[np.int32],
    whole: NDArray[np.float32],
    wrong: NDArray[Any],
    message: str,
) -> None:
    state, company = decoder.new_state(), decoder.new_state()
    decoded(decoder, codes[:1], state)
    with pytest.raises(CodesError, match=message):
        decoder.decode([(company, codes[:1]), (state, wrong)])
    assert np.array_equal(decoded(decoder, codes[1:2], state), whole[1920 : 2 * 1920])
    assert np.array_equal(decoded(decoder, codes[:1], company), whole[:1920])


def test_an_f16_codec_stays_near_the_f32_one(
    pair: Callable[..., ConvertedPair], codes: NDArray[np.int32], whole: NDArray[np.float32]
) -> None:
    half = CodecDecoder(MmprojFile(pair(codec_type="f16").mmproj), Backend(1))
    n = 20 * half.samples_per_frame
    assert snr_db(decoded(half, codes[:20]), whole[:n]) > 45


@pytest.mark.parametrize(("layout", "least_db"), [("F32", 60), ("Q8_0", 40)])
def test_a_layout_stays_near_the_f16_one_on_a_trained_codec(layout: str, least_db: int) -> None:
    file = MmprojFile(find_mmproj(nano.folder()))
    codes = np.random.default_rng(0).integers(0, file.decoder.codebook_size, (20, 16))
    expected, found = (decoded(CodecDecoder(file, Backend(1), LAYOUTS[name]), codes) for name in ("F16", layout))
    assert least_db < snr_db(found, expected) < 90  # and is another one


@pytest.mark.parametrize("layout", ["F16", "F32"])
def test_an_f32_file_is_computed_in_f32_by_any_layout_without_q8_0(
    files: ModelFiles, codes: NDArray[np.int32], whole: NDArray[np.float32], layout: str
) -> None:
    found = decoded(CodecDecoder(files.mmproj, Backend(1), LAYOUTS[layout]), codes[:8])
    assert snr_db(found, whole[: 8 * 1920]) > 90


def test_graphs_are_kept_for_a_bounded_number_of_shapes(decoder: CodecDecoder, codes: NDArray[np.int32]) -> None:
    for n_streams in range(1, 10):
        decoder.decode([(decoder.new_state(), codes[: 1 + i % 6]) for i in range(n_streams)])
    assert len(decoder._heads) <= 5


def test_a_state_that_is_dropped_is_freed(decoder: CodecDecoder, codes: NDArray[np.int32]) -> None:
    state = decoder.new_state()
    decoded(decoder, codes[:1], state)
    assert state.block.base is not None
    block = weakref.ref(state.block.base)
    del state
    gc.collect()
    assert block() is None
