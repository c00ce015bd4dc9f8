"""Structures that are never written by accident, made by hypothesis: refused in one line, or what they say they are.

The same cases in every run (conftest.py); many more, and others, by `just fuzz`.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_gguf_file
import tiny
from hypothesis import given
from hypothesis import strategies as st

from qwen3tts_convert.checkpoint import Checkpoint
from qwen3tts_convert.weights import Weights
from qwen3tts_gguf.errors import CheckpointError, CodesError, ModelFileError, OptionError
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model.gguf_file import GgufFile
from qwen3tts_gguf.model.sampling_defaults import GenerationDefaults
from qwen3tts_gguf.nets.codes import read_codes

# -- GGUF --------------------------------------------------------------------------------------------------------------

COUNT = st.one_of(
    st.integers(0, 40), st.sampled_from([1 << 16, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
)
NAME = st.one_of(st.sampled_from(["a", "b", "general.alignment", "one"]), st.text(max_size=70)).map(str.encode)
VALUE = st.one_of(
    st.tuples(st.sampled_from([0, 1, 7]), st.binary(min_size=1, max_size=1)),
    st.tuples(st.sampled_from([4, 5, 6]), st.binary(min_size=4, max_size=4)),
    st.tuples(st.sampled_from([10, 11, 12]), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(8), st.binary(max_size=20).map(test_gguf_file.text)),
    st.tuples(st.just(9), st.builds(test_gguf_file.array, st.integers(0, 13), COUNT, st.binary(max_size=64))),
    st.tuples(st.integers(0, 1 << 31), st.binary(max_size=16)),
)
KEY = st.builds(lambda name, value: test_gguf_file.key(name, *value), NAME, VALUE)
TENSOR = st.builds(
    test_gguf_file.tensor,
    NAME,
    st.lists(COUNT, max_size=5),
    st.one_of(st.sampled_from([*GgmlType]).map(int), st.integers(0, 1 << 31)),
    st.one_of(st.integers(0, 12).map(lambda n: 32 * n), COUNT),
)


@given(
    keys=st.lists(KEY, max_size=4),
    tensors=st.lists(TENSOR, max_size=4),
    n_bytes=st.integers(0, 512),
    version=st.sampled_from([2, 3, 3, 3, 4]),
    claims=st.tuples(st.none() | COUNT, st.none() | COUNT),
)
def test_any_gguf_structure_is_read_whole_or_refused(
    tmp_path: Path, keys: list[bytes], tensors: list[bytes], n_bytes: int, version: int, claims: tuple[Any, Any]
) -> None:
    path = tmp_path / "made.gguf"
    n_tensors, n_keys = claims
    path.write_bytes(
        test_gguf_file.build(keys, tensors, bytes(n_bytes), version=version, n_tensors=n_tensors, n_keys=n_keys)
    )
    try:
        messages = test_gguf_file.read_everything(path)
        placed = sorted((info.offset, info.n_bytes) for info in GgufFile(path).tensors.values())
    except ModelFileError as error:
        messages, placed = [str(error)], []
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)
    ends = [0, *(offset + n for offset, n in placed)]
    assert all(end <= offset for end, (offset, _) in zip(ends, placed, strict=False)), "tensors overlap"
    assert ends[-1] <= path.stat().st_size


# -- checkpoints -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 70),
        st.sampled_from([1 << 20, 1 << 24, 1 << 31, 1 << 62, 10**30, -(10**18)]),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["\ud800", "x" * 200, "<|im_end|>", "../x", "\x1b[31m"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
CONFIGURATIONS = ("config.json", "speech_tokenizer/config.json", "generation_config.json", "tokenizer_config.json")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CustomVoice checkpoint to write over: it has every table."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("broken") / "tiny", model_type="custom_voice")


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


@given(data=st.data())
def test_any_configuration_is_converted_or_refused(broken: Path, data: st.DataObject) -> None:
    path = broken / data.draw(st.sampled_from(CONFIGURATIONS))
    sound = path.read_text(encoding="utf-8")
    document = {"document": json.loads(sound)}
    *where, last = data.draw(st.sampled_from(places(document)[1:]))
    target: Any = document
    for key in where:
        target = target[key]
    if data.draw(st.booleans()):
        target[last] = data.draw(JSON)
    else:
        del target[last]
    try:
        path.write_text(json.dumps(document.get("document", {})), encoding="utf-8")
        try:
            checkpoint = Checkpoint(broken, "fuzz")
            sources = (checkpoint.talker_sources(), checkpoint.mmproj_sources())
            checkpoint.require_no_unknown_tensors(*sources)
            _ = checkpoint.generation_defaults, [checkpoint.dialect(speaker) for speaker in checkpoint.speakers]
        except (CheckpointError, OptionError, ModelFileError):
            pass  # anything else fails the test
    finally:
        path.write_text(sound, encoding="utf-8")


@pytest.mark.parametrize("dialect", [[], {}, 7, "klingon"])
def test_a_dialect_of_any_kind_is_known_or_refused(broken: Path, dialect: Any) -> None:
    """An unhashable one was a TypeError, which hypothesis found."""
    checkpoint = Checkpoint(broken, "fuzz")
    checkpoint.talker.values["spk_is_dialect"]["serena"] = dialect  # type: ignore[index]
    with pytest.raises(CheckpointError, match="unknown language"):
        checkpoint.dialect("serena")


@given(
    entry=st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["F32", "BF16", "F8", 7, None]),
            "shape": st.one_of(
                st.lists(st.one_of(st.integers(-2, 9), st.sampled_from([1 << 62, 1.5, "3", [0], 10**12]))), JSON
            ),
            "data_offsets": st.one_of(
                st.lists(st.one_of(st.integers(-4, 300), st.floats(), st.just(1 << 63)), max_size=3), JSON
            ),
        },
    )
    | JSON,
    claimed=st.one_of(st.none(), COUNT),
)
def test_any_safetensors_header_is_read_or_refused(tmp_path: Path, entry: Any, claimed: int | None) -> None:
    header = json.dumps({"__metadata__": {}, "t": entry}).encode()
    n_bytes = len(header) if claimed is None else claimed
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", n_bytes) + header + bytes(256))
    with suppress(CheckpointError):  # anything else fails the test
        Weights(tmp_path).read("t")


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "", ".", 7])
def test_an_index_opens_nothing_outside_the_folder(tmp_path: Path, shard: Any) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"t": shard}}))
    with pytest.raises(CheckpointError):
        Weights(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_json_nested_without_end_is_refused(broken: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError):
        Weights(tmp_path) if "index" in name else Checkpoint(tmp_path, "fuzz")


# -- generation defaults -----------------------------------------------------------------------------------------------


@given(values=st.dictionaries(st.sampled_from([*vars(GenerationDefaults())]), JSON, max_size=4))
def test_any_sampling_defaults_are_followed_or_refused(values: dict[str, Any]) -> None:
    try:
        found = GenerationDefaults.from_mapping(values)
    except ValueError:
        return
    assert 0 < found.temperature < float("inf") and 0 < found.subtalker_temperature < float("inf")
    assert 0 < found.top_p <= 1 and found.top_k >= 0 and found.max_new_tokens >= 1


# -- codes.npy ---------------------------------------------------------------------------------------------------------


@given(
    shape=st.one_of(st.tuples(COUNT, st.just(16)), st.lists(st.integers(-3, 1 << 40), max_size=3).map(tuple)),
    descr=st.sampled_from(["<i4", "<i8", "|u1", ">i2", "<f4", "|O", "|V0", "<U3", "a b", "<i4,<i4", "<M8[s]"]),
    body=st.binary(max_size=600),
    fortran=st.booleans(),
)
def test_any_npy_is_codes_or_refused(
    tmp_path: Path, shape: tuple[int, ...], descr: str, body: bytes, fortran: bool
) -> None:
    header = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}}}\n".encode()
    path = tmp_path / "codes.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)
    with suppress(CodesError):  # anything else fails the test
        codes = read_codes(path, 2048)
        assert codes.shape == shape and codes.min(initial=0) >= 0 and codes.max(initial=0) < 2048


@pytest.mark.parametrize("header", [b"(" * 9_000, b"[" * 9_000, b"__import__('os')", b"\xff" * 80, b"{}", b""])
def test_a_npy_header_is_data_and_not_code(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "codes.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(CodesError, match="file of codes"):
        read_codes(path, 2048)


def test_pickles_and_archives_are_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return (shutil.rmtree, (str(tmp_path),))

    pickled, archive = io.BytesIO(), io.BytesIO()
    np.save(pickled, np.array([Trap()], object), allow_pickle=True)
    np.savez(archive, codes=np.zeros((1, 16), np.int32))
    for data in (pickled, archive):
        path = tmp_path / "codes.npy"
        path.write_bytes(data.getvalue())
        with pytest.raises(CodesError, match="file of codes"):
            read_codes(path, 2048)
