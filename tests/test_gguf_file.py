"""The GGUF reader: what gguf's own writer writes comes back, and a damaged file ends in one ModelFileError."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from qwen3tts_gguf.errors import ModelFileError
from qwen3tts_gguf.ggml.rows import quantize_rows
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model.gguf_file import GgufFile

U32, STRING, ARRAY = 4, 8, 9
F32, F16, Q8_0 = 0, 1, 8

# -- what gguf's writer writes -----------------------------------------------------------------------------------------

SCALARS: dict[str, tuple[Callable[[gguf.GGUFWriter, str, Any], None], Any]] = {
    "uint8": (gguf.GGUFWriter.add_uint8, 200),
    "int8": (gguf.GGUFWriter.add_int8, -100),
    "uint16": (gguf.GGUFWriter.add_uint16, 60_000),
    "int16": (gguf.GGUFWriter.add_int16, -30_000),
    "uint32": (gguf.GGUFWriter.add_uint32, 4_000_000_000),
    "int32": (gguf.GGUFWriter.add_int32, -2_000_000_000),
    "uint64": (gguf.GGUFWriter.add_uint64, 1 << 60),
    "int64": (gguf.GGUFWriter.add_int64, -(1 << 60)),
    "float32": (gguf.GGUFWriter.add_float32, 0.25),
    "float64": (gguf.GGUFWriter.add_float64, 0.1),
    "true": (gguf.GGUFWriter.add_bool, True),
    "false": (gguf.GGUFWriter.add_bool, False),
    "string": (gguf.GGUFWriter.add_string, "déjà 你好 😀"),
}
STRINGS = ["a", "你好", "", "x" * 1000]  # gguf's writer has no empty string array


def write(path: Path, tensors: dict[str, Any], add: Callable[[gguf.GGUFWriter], object] = lambda _: None) -> Path:
    writer = gguf.GGUFWriter(path, "test")
    add(writer)
    for name, tensor in tensors.items():
        if isinstance(tensor, tuple):
            blocks, type = tensor
            writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType(type))
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_scalar_comes_back(tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        for name, (method, value) in SCALARS.items():
            method(writer, f"key.{name}", value)

    file = GgufFile(write(tmp_path / "scalars.gguf", {}, add))
    expected = {f"key.{name}": value for name, (_, value) in SCALARS.items()}
    assert dict(file.scalars()) == {"general.architecture": "test", **expected}
    assert all(type(value) is type(expected[key]) for key, value in file.scalars() if key in expected)
    assert file.integer("key.uint64") == 1 << 60
    assert file.number("key.int8") == -100.0
    assert file.flag("key.true") and not file.flag("key.false")
    assert file.text("key.string") == "déjà 你好 😀"
    assert "key.int8" in file and "key.none" not in file


def test_arrays_come_back(tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_array("numbers", [1, -2, 3])
        writer.add_array("bytes", bytes([7, 8, 255]))
        writer.add_array("texts", STRINGS)
        writer.add_uint32("after", 5)

    file = GgufFile(write(tmp_path / "arrays.gguf", {}, add))
    assert file.integers("numbers") == [1, -2, 3]
    assert file.integers("bytes") == [7, 8, 255]
    assert file.strings("texts") == STRINGS
    assert file.strings("absent") == [] and file.integers("absent") == []
    assert dict(file.array_lengths()) == {"numbers": 3, "bytes": 3, "texts": 4}
    assert file.integer("after") == 5


def test_tensors_come_back_in_numpy_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 5, 64)).astype(np.float32)
    blocks = quantize_rows(values.reshape(-1, 64), GgmlType.Q8_0)
    tensors: dict[str, Any] = {
        "f32": values,
        "f16": values.astype(np.float16),
        "vector": values[0, 0],
        "q8_0": (blocks.reshape(3, 5, -1), GgmlType.Q8_0),
        "four": values.reshape(3, 1, 5, 64),
    }
    file = GgufFile(write(tmp_path / "tensors.gguf", tensors))
    assert list(file.tensors) == list(tensors)
    assert file.info("f32").shape == (3, 5, 64) and file.info("four").shape == (3, 1, 5, 64)
    assert file.info("q8_0").shape == (3, 5, 64) and file.info("q8_0").type is GgmlType.Q8_0
    assert file.info("q8_0").n_bytes == blocks.nbytes
    assert np.array_equal(file.array("f32"), values)
    assert np.array_equal(file.array("f16"), values.astype(np.float16)) and file.array("f16").dtype == np.float16
    assert np.array_equal(file.array("vector"), values[0, 0])
    assert np.array_equal(file.blocks("q8_0"), blocks.reshape(-1))


def test_tensors_are_mapped_read_only_and_aligned(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path / "mapped.gguf", {"a": np.ones(3, np.float32), "b": np.ones(5, np.float32)}))
    for name in ("a", "b"):
        array = file.array(name)
        assert not array.flags.writeable and not array.flags.owndata
        assert array.ctypes.data % 32 == 0


@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_alignment_is_followed(tmp_path: Path, alignment: int) -> None:
    tensors = {"a": np.arange(3, dtype=np.float32), "b": np.arange(7, dtype=np.float32)}
    path = write(tmp_path / "aligned.gguf", tensors, lambda writer: writer.add_custom_alignment(alignment))
    file = GgufFile(path)
    assert all(info.offset % alignment == 0 for info in file.tensors.values())
    assert np.array_equal(file.array("b"), tensors["b"])


def test_version_2_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "v3.gguf", {"a": np.ones(3, np.float32)})
    old = tmp_path / "v2.gguf"
    old.write_bytes(path.read_bytes()[:4] + struct.pack("<I", 2) + path.read_bytes()[8:])
    assert GgufFile(old).array("a").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda file: file.text("absent"), "the key absent is missing"),
        (lambda file: file.text("key.int8"), "the key key.int8 should be text"),
        (lambda file: file.integer("key.string"), "the key key.string should be a whole number"),
        (lambda file: file.integer("key.float32"), "the key key.float32 should be a whole number"),
        (lambda file: file.integer("key.true"), "the key key.true should be a whole number"),
        (lambda file: file.number("key.true"), "the key key.true should be a number"),
        (lambda file: file.flag("key.uint8"), "the key key.uint8 should be true or false"),
        (lambda file: file.text("texts"), "the key texts should be text"),
        (lambda file: file.integers("texts"), "the key texts is not an array of the expected kind"),
        (lambda file: file.strings("numbers"), "the key numbers is not an array of the expected kind"),
        (lambda file: file.strings("key.string"), "the key key.string is not an array of the expected kind"),
        (lambda file: file.info("absent"), "the tensor absent is missing"),
        (lambda file: file.array("q8_0"), "q8_0 is stored as Q8_0; it should be F32 or F16"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(
    tmp_path: Path, ask: Callable[[GgufFile], object], message: str
) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        for name, (method, value) in SCALARS.items():
            method(writer, f"key.{name}", value)
        writer.add_array("numbers", [1, 2])
        writer.add_array("texts", ["a"])

    blocks = quantize_rows(np.ones((1, 32), np.float32), GgmlType.Q8_0)
    path = write(tmp_path / "kinds.gguf", {"q8_0": (blocks, GgmlType.Q8_0)}, add)
    with pytest.raises(ModelFileError) as caught:
        ask(GgufFile(path))
    assert str(caught.value) == f"{path}: {message}"


def test_a_default_stands_in_for_a_missing_key_only(tmp_path: Path) -> None:
    file = GgufFile(write(tmp_path / "defaults.gguf", {}, lambda writer: writer.add_string("text", "x")))
    assert file.text("text", "default") == "x"
    assert file.text("absent", "") == "" and file.integer("absent", 0) == 0 and file.flag("absent", False) is False
    with pytest.raises(ModelFileError):
        file.integer("text", 3)


# -- damaged files, byte by byte ---------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def key(name: str | bytes, type: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", type) + value


def array(element: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", element, count) + data


def tensor(name: str | bytes, ne: Iterable[int], type: int = F32, offset: int = 0, n_dims: int | None = None) -> bytes:
    ne = list(ne)
    sizes = b"".join(struct.pack("<Q", n) for n in ne)
    return (
        text(name) + struct.pack("<I", len(ne) if n_dims is None else n_dims) + sizes + struct.pack("<IQ", type, offset)
    )


def build(
    keys: Iterable[bytes] = (), tensors: Iterable[bytes] = (), data: bytes = bytes(256), *,
    magic: bytes = b"GGUF", version: int = 3, n_tensors: int | None = None, n_keys: int | None = None,
) -> bytes:  # fmt: skip
    keys, tensors = list(keys), list(tensors)
    header = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(keys) if n_keys is None else n_keys,
    )
    header += b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data


ONE = key("one", U32, struct.pack("<I", 1))
DAMAGED = {
    "empty": (b"", "cannot be opened"),
    "short": (b"GG", "ends in the middle of its header"),
    "another format": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "magic only": (b"GGUF", "ends in the middle"),
    "version 1": (build(version=1), "GGUF version 1 is not supported"),
    "version 4": (build(version=4), "GGUF version 4 is not supported"),
    "big-endian": (build(version=3 << 24), "is not supported"),
    "too many tensors": (build(n_tensors=1 << 40), r"claims \d+ tensors"),
    "too many keys": (build(n_keys=(1 << 64) - 1), r"claims 0 tensors and \d+ keys"),
    "more keys than there are": (build([ONE], n_keys=6), "has the key '' twice"),  # padding, read as keys
    "long key": (build([key("k" * 70_000, U32, bytes(4))]), "has a name of 70000 bytes"),
    "endless key": (build([struct.pack("<Q", (1 << 64) - 1)]), r"has a name of \d+ bytes"),
    "endless text": (build([key("text", STRING, struct.pack("<Q", 1 << 62))]), r"has a name of \d+ bytes"),
    "key is not UTF-8": (build([key(b"\xff\xfe", U32, bytes(4))]), "not UTF-8"),
    "text is not UTF-8": (build([key("text", STRING, text(b"\xc3\x28"))]), "not UTF-8"),
    "unknown value type": (build([key("key", 13, bytes(8))]), "value of unknown type 13"),
    "unknown element type": (build([key("key", ARRAY, array(99, 1, bytes(8)))]), "array of unknown type 99"),
    "array of arrays": (build([key("key", ARRAY, array(ARRAY, 1, bytes(16)))]), "array of unknown type 9"),
    "endless array": (build([key("key", ARRAY, array(U32, 1 << 61))]), "ends in the middle of its header"),
    "endless string array": (build([key("key", ARRAY, array(STRING, 1 << 61))]), r"claims an array of \d+ strings"),
    "string array past the end": (
        build([key("key", ARRAY, array(STRING, 2, text("a") + struct.pack("<Q", 1 << 40)))]),
        "ends in the middle of its header",
    ),
    "key twice": (build([ONE, ONE]), "has the key 'one' twice"),
    "tensor twice": (build([], [tensor("a", [4]), tensor("a", [4], offset=32)]), "has the tensor a twice"),
    "long tensor name": (build([], [tensor("t" * 65, [4])]), "has a name of 65 bytes"),
    "tensor name is not UTF-8": (build([], [tensor(b"\xff", [4])]), "not UTF-8"),
    "no dimensions": (build([], [tensor("a", [])]), "gives a 0 dimensions"),
    "five dimensions": (build([], [tensor("a", [1] * 5)]), "gives a 5 dimensions"),
    "very many dimensions": (build([], [tensor("a", [4], n_dims=1 << 31)]), r"gives a \d+ dimensions"),
    "size zero": (build([], [tensor("a", [0, 4])]), "impossible shape"),
    "size 2**63": (build([], [tensor("a", [1 << 63])]), "impossible shape"),
    "product overflows": (build([], [tensor("a", [1 << 32, 1 << 32])]), "impossible shape"),
    "product overflows to little": (build([], [tensor("a", [1 << 63, 2, 4])]), "impossible shape"),
    "row is no whole number of blocks": (build([], [tensor("a", [33], type=Q8_0)]), "impossible shape"),
    "unknown tensor type": (build([], [tensor("a", [4], type=31)]), "stores a in unknown type 31"),
    "huge tensor type": (build([], [tensor("a", [4], type=(1 << 32) - 1)]), r"stores a in unknown type \d+"),
    "outside": (build([], [tensor("a", [4], offset=1 << 20)]), "ends before its tensor a does"),
    "offset 2**63": (build([], [tensor("a", [4], offset=1 << 63)]), "ends before its tensor a does"),
    "one byte short": (build([], [tensor("a", [64])])[:-1], "ends before its tensor a does: an incomplete download"),
    "misaligned": (build([], [tensor("a", [4], offset=4)]), "off its alignment"),
    "overlapping": (build([], [tensor("a", [16]), tensor("b", [4], offset=32)]), "over another tensor"),
    "same place": (build([], [tensor("a", [4]), tensor("b", [4])]), "over another tensor"),
    "alignment 0": (build([key("general.alignment", U32, struct.pack("<I", 0))]), "has the alignment 0"),
    "alignment 3": (build([key("general.alignment", U32, struct.pack("<I", 3))]), "has the alignment 3"),
    "alignment 2**31": (build([key("general.alignment", U32, struct.pack("<I", 1 << 31))]), r"has the alignment \d+"),
    "alignment is text": (build([key("general.alignment", STRING, text("32"))]), "should be a whole number"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_one_error_that_names_it(tmp_path: Path, case: str) -> None:
    data, message = DAMAGED[case]
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message) as caught:
        GgufFile(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_sound_file_of_the_same_builder_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    path.write_bytes(build([ONE], [tensor("a", [4, 2]), tensor("b", [32], type=Q8_0, offset=32)]))
    file = GgufFile(path)
    assert file.info("a").shape == (2, 4) and file.info("b").type is GgmlType.Q8_0


def test_text_of_an_array_that_is_not_utf8_is_an_error_when_read(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(build([key("texts", ARRAY, array(STRING, 1, text(b"\xff")))]))
    with pytest.raises(ModelFileError, match=f"{path}: .*texts"):
        GgufFile(path).strings("texts")


@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path, missing: bool) -> None:
    path = tmp_path / "nothing.gguf" if missing else tmp_path
    with pytest.raises(ModelFileError, match="no such file" if missing else "cannot be opened") as caught:
        GgufFile(path)
    assert str(caught.value).startswith(f"{path}: ")


# -- truncation and mutation -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with something of everything, its header about as large as its data."""

    def add(writer: gguf.GGUFWriter) -> None:
        for name, (method, value) in SCALARS.items():
            method(writer, f"key.{name}", value)
        writer.add_array("numbers", [1, -2, 3])
        writer.add_array("texts", ["a", "你好", ""])
        writer.add_custom_alignment(32)

    blocks = quantize_rows(np.ones((4, 32), np.float32), GgmlType.Q8_0)
    tensors = {"f32": np.ones((2, 8), np.float32), "f16": np.ones(9, np.float16), "q8": (blocks, GgmlType.Q8_0)}
    return write(tmp_path_factory.mktemp("small") / "small.gguf", tensors, add).read_bytes()


def read_everything(path: Path) -> list[str]:
    """What was refused on the way."""
    messages = []
    file = GgufFile(path)
    list(file.scalars())
    for name in file.array_lengths():
        for read in (file.strings, file.integers):
            try:
                read(name)
            except ModelFileError as error:
                messages.append(str(error))
    for name, info in file.tensors.items():
        assert len(file.blocks(name)) == info.n_bytes
        if info.type in (GgmlType.F32, GgmlType.F16):
            assert file.array(name).shape == info.shape
    return messages


def test_a_file_cut_anywhere_is_refused(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    rng = np.random.default_rng(0)
    lengths = {*range(0, len(small) - 64, 64), *rng.integers(0, len(small) - 64, 100).tolist()}
    for length in sorted(lengths):
        path.write_bytes(small[:length])
        with pytest.raises(ModelFileError, match=str(path)):
            GgufFile(path)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four runs of bytes overwritten, each up to a whole 64-bit count, mostly with extremes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place, run = rng.randrange(len(data)), rng.randint(1, 8)
        byte = rng.choice((0, 1, 0x7F, 0x80, 0xFF)) if rng.random() < 0.7 else rng.randrange(256)
        out[place : place + run] = bytes([byte]) * len(out[place : place + run])
    return bytes(out)


@pytest.mark.parametrize(("n_cases", "traced"), [(3000, False), (300, True)], ids=["many", "memory"])
def test_a_mutated_file_is_read_or_refused_and_nothing_else(
    small: bytes, tmp_path: Path, n_cases: int, traced: bool
) -> None:
    path = tmp_path / "mutated.gguf"
    rng = random.Random(1)
    messages = []
    n_refused = 0
    if traced:
        tracemalloc.start()
    with path.open("wb", buffering=0) as file:  # one file, written over: making a new one takes most of the time
        for _ in range(n_cases):
            file.seek(0)
            file.write(mutated(small, rng))
            try:
                messages += read_everything(path)
            except ModelFileError as error:
                messages.append(str(error))
                n_refused += 1
    assert all(message.startswith(f"{path}: ") for message in messages)
    assert n_cases / 4 < n_refused < n_cases
    if traced:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 4 << 20
