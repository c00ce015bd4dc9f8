"""Voices kept under a name: what comes back, what cannot be a name, and files that are not voices."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from qwen3tts_gguf import Voice, VoiceError, VoiceStore
from qwen3tts_gguf.voice.store import SUFFIX, mix

SPEAKER = np.linspace(-1, 1, 128, dtype=np.float32)
CODES = np.arange(80, dtype=np.int32).reshape(5, 16)
CLONE = Voice(
    speaker=SPEAKER,
    codes=CODES,
    transcript="What the clip says: “今天”, [/b] and ümlaut.",
    language="english",
    codec="0123456789abcdef",
    speaker_encoder="fedcba9876543210",
    clip_sha256="ab" * 32,
)
VOICES = {
    "clone": CLONE,
    "vector": CLONE.without_codes(),
    "designed": Voice(codes=CODES, transcript="Hello.", codec="0123456789abcdef"),
    "preset": Voice.preset("vivian", instruct="Slowly."),
    "description": Voice.design("An old man."),
    "strided": Voice(speaker=np.repeat(SPEAKER, 2)[::2], codes=np.repeat(CODES, 2, axis=0)[::2], transcript="Hi."),
}


@pytest.fixture
def store(tmp_path: Path) -> VoiceStore:
    return VoiceStore(tmp_path / "voices")


def same(a: Voice, b: Voice) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(Voice)]
    return all(np.array_equal(x, y) and type(x) is type(y) for x, y in pairs)


# -- keeping -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", VOICES)
def test_a_voice_comes_back_whole(store: VoiceStore, kind: str) -> None:
    path = store.save("anna", VOICES[kind])
    assert path == store.folder / f"anna{SUFFIX}" and list(store.folder.iterdir()) == [path]
    found = store.load("anna")
    assert same(found, VOICES[kind])
    assert found.speaker is None or found.speaker.dtype == np.float32
    assert found.codes is None or found.codes.dtype == np.int32


def test_voices_are_listed_and_deleted(store: VoiceStore) -> None:
    assert store.names() == []
    for name in ("ben", "anna", "张伟"):
        store.save(name, CLONE)
    (store.folder / "notes.txt").touch()
    for name in (".hidden", "a!b", "end "):
        (store.folder / f"{name}{SUFFIX}").touch()
    assert store.names() == ["anna", "ben", "张伟"]
    store.delete("ben")
    assert store.names() == ["anna", "张伟"]
    with pytest.raises(VoiceError, match="no voice named 'ben'"):
        store.delete("ben")
    with pytest.raises(VoiceError, match=r"no voice named 'ben' in .*\(anna, 张伟\)"):
        store.load("ben")


def test_an_empty_store_says_so(store: VoiceStore) -> None:
    with pytest.raises(VoiceError, match=r"no voice named 'anna' in .*none yet"):
        store.load("anna")


def test_a_voice_is_not_overwritten_unless_asked(store: VoiceStore) -> None:
    store.save("anna", CLONE)
    with pytest.raises(VoiceError, match=r"a voice named 'anna' exists already.*delete that voice first"):
        store.save("anna", VOICES["designed"])
    assert same(store.load("anna"), CLONE)
    store.save("anna", VOICES["designed"], overwrite=True)
    assert same(store.load("anna"), VOICES["designed"])


@pytest.mark.parametrize("name", ["a", "v1.0", "Anna Karenina", "张伟", "_x", "a" * 64, "字" * 60, "a..b", "CON"])
def test_what_can_be_a_name(store: VoiceStore, name: str) -> None:
    assert store.save(name, CLONE).parent == store.folder
    assert store.names() == [name]


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../anna", "a/b", "/tmp/anna", "a\\b", ".hidden", "-o", "a\0b", "a\nb", "a\n", "a:b"),
        *("a ", "a.", "a*", "~", "a" * 65, "\U00020000" * 64),  # 256 bytes
    ],
    ids=repr,
)
def test_what_cannot_be_a_name(store: VoiceStore, tmp_path: Path, name: str) -> None:
    for use in (store.path, store.load, store.delete, store.require_free, lambda name: store.save(name, CLONE)):
        with pytest.raises(VoiceError, match="cannot be the name of a voice"):
            use(name)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": None},
        {"transcript": None},
        {"codes": CODES.astype(np.int64)},
        {"codes": np.zeros((5000, 16), np.int32)},
        {"speaker": np.full(128, np.nan, np.float32)},
        {"transcript": "caf\udce9"},
    ],
    ids=["no codes", "no transcript", "int64", "too long", "nan", "surrogates"],
)
def test_what_could_not_be_loaded_is_not_kept(store: VoiceStore, changes: dict[str, Any]) -> None:
    with pytest.raises(VoiceError, match="cannot be saved"):
        store.save("anna", dataclasses.replace(CLONE, **changes))
    assert not store.names()


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VoiceError, match="cannot be written"):
        VoiceStore(tmp_path / "file").save("anna", CLONE)
    assert VoiceStore(tmp_path / "file").names() == []


def test_an_interrupted_save_leaves_nothing(store: VoiceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save("anna", CLONE)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save("anna", VOICES["designed"], overwrite=True)
    assert [path.name for path in store.folder.iterdir()] == [f"anna{SUFFIX}"] and same(store.load("anna"), CLONE)


# -- damaged files -----------------------------------------------------------------------------------------------------


def file_bytes(arrays: dict[str, Any], voice: str | None, format: str = "qwen3tts-voice-1") -> bytes:
    """A safetensors file written by hand, so that any dtype and shape can be claimed."""
    header: dict[str, Any] = {"__metadata__": {"format": format}}
    if voice is not None:
        header["__metadata__"]["voice"] = voice
    data = b""
    for name, (dtype, shape, body) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(body)]}
        data += body
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


TEXTS = json.dumps({"transcript": "Hi."})
VECTOR = ("F32", [128], SPEAKER.tobytes())
FRAMES = ("I32", [5, 16], CODES.tobytes())
NAN = np.full(128, np.nan, np.float32).tobytes()


def test_a_file_written_by_hand_is_a_voice(tmp_path: Path) -> None:
    """What the damaged ones are like, but for their damage."""
    path = tmp_path / "voice"
    path.write_bytes(file_bytes({"speaker": VECTOR, "codes": FRAMES}, TEXTS))
    assert same(Voice.load(path), Voice(speaker=SPEAKER, codes=CODES, transcript="Hi."))


@pytest.mark.parametrize(
    "content",
    {
        "empty": b"",
        "text": b"this is not a voice\n" * 10,
        "zeros": bytes(1000),
        "truncated": file_bytes({"speaker": VECTOR, "codes": FRAMES}, TEXTS)[:-10],
        "another tool's": file_bytes({"speaker": VECTOR}, None, format="pt"),
        "a later format": file_bytes({"speaker": VECTOR}, "{}", format="qwen3tts-voice-2"),
        "no texts": file_bytes({"speaker": VECTOR}, None),
        "not JSON": file_bytes({"speaker": VECTOR}, "{transcript"),
        "deep JSON": file_bytes({"speaker": VECTOR}, "[" * 100_000),
        "a list": file_bytes({"speaker": VECTOR}, "[]"),
        "a number": file_bytes({"speaker": VECTOR}, '{"language": 7}'),
        "unknown text": file_bytes({"speaker": VECTOR}, '{"codes": "x"}'),
        "half a surrogate pair": file_bytes({"speaker": VECTOR}, '{"language": "\\ud800"}'),
        "codes without transcript": file_bytes({"codes": FRAMES}, "{}"),
        "transcript without codes": file_bytes({"speaker": VECTOR}, TEXTS),
        "vector of doubles": file_bytes({"speaker": ("F64", [64], SPEAKER.tobytes())}, "{}"),
        "vector of bfloat16": file_bytes({"speaker": ("BF16", [256], SPEAKER.tobytes())}, "{}"),
        "vector of float8": file_bytes({"speaker": ("F8_E4M3", [512], SPEAKER.tobytes())}, "{}"),
        "vector with rows": file_bytes({"speaker": ("F32", [2, 64], SPEAKER.tobytes())}, "{}"),
        "vector of nothing": file_bytes({"speaker": ("F32", [0], b"")}, "{}"),
        "vector of NaN": file_bytes({"speaker": ("F32", [128], NAN)}, "{}"),
        "vector too long": file_bytes({"speaker": ("F32", [20_000], bytes(80_000))}, "{}"),
        "codes of floats": file_bytes({"codes": ("F32", [5, 16], CODES.tobytes())}, TEXTS),
        "codes of int64": file_bytes({"codes": ("I64", [5, 8], CODES.tobytes())}, TEXTS),
        "codes with 8 columns": file_bytes({"codes": ("I32", [10, 8], CODES.tobytes())}, TEXTS),
        "no codes at all": file_bytes({"codes": ("I32", [0, 16], b"")}, TEXTS),
        "negative codes": file_bytes({"codes": ("I32", [5, 16], (CODES - 1).tobytes())}, TEXTS),
        "too many codes": file_bytes({"codes": ("I32", [5000, 16], bytes(320_000))}, TEXTS),
        "oversized": file_bytes({"speaker": VECTOR, "other": ("U8", [2_000_000], bytes(2_000_000))}, "{}"),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, content: tuple[str, bytes]) -> None:
    path = tmp_path / f"anna{SUFFIX}"
    path.write_bytes(content[1])
    with pytest.raises(VoiceError) as caught:
        VoiceStore(tmp_path).load("anna")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match=r"absent: no such file"):
        Voice.load(tmp_path / "absent")
    with pytest.raises(VoiceError, match=str(tmp_path)):
        Voice.load(tmp_path)


def test_no_mutation_ends_in_anything_but_a_voice_error(tmp_path: Path) -> None:
    """2,000 files with bytes changed, cut out or put in, most of them in the header."""
    random = np.random.default_rng(0)
    CLONE.save(tmp_path / "sound")
    sound, path = (tmp_path / "sound").read_bytes(), tmp_path / "mutated"
    n_header, refusals = 8 + struct.unpack("<Q", sound[:8])[0], list[str]()
    for _ in range(2_000):
        content = bytearray(sound)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(n_header if random.random() < 0.8 else len(content)))
            kind = random.integers(4)
            if kind == 0:
                content[at : at + int(random.integers(1, 9))] = b""
            elif kind == 1:
                content[at:at] = random.bytes(int(random.integers(1, 9)))
            elif kind == 2 and at < len(content):
                content[at] = random.choice(list(b'0123456789"{}[]:,-\\FIBU\x00\xff'))
            elif at < len(content):
                content[at] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        try:
            Voice.load(path)
        except VoiceError as error:
            refusals.append(str(error))
    assert 1_000 < len(refusals) < 2_000 and all(str(path) in refusal for refusal in refusals)


def test_the_files_are_plain_safetensors(store: VoiceStore) -> None:
    arrays = load_file(store.save("anna", CLONE))
    assert sorted(arrays) == ["codes", "speaker"] and np.array_equal(arrays["codes"], CODES)
    save_file(arrays, store.path("anna"))  # by another tool, so without its texts
    with pytest.raises(VoiceError, match="not a voice saved by qwen3tts"):
        store.load("anna")


# -- mixing ------------------------------------------------------------------------------------------------------------


def vector(*values: float, encoder: str = "one") -> Voice:
    return Voice(speaker=np.array(values, np.float32), speaker_encoder=encoder)


def test_a_mixture_is_the_weighted_mean() -> None:
    mixed = mix([vector(1, 0), vector(0, 1)], [0.7, 0.3])
    assert mixed.speaker is not None and mixed.speaker.dtype == np.float32
    assert mixed.speaker == pytest.approx([0.7, 0.3]) and mixed.speaker_encoder == "one"
    mixed = mix([vector(1, 0), vector(0, 1), vector(4, 4)], [2, 1, 1])
    assert mixed.speaker == pytest.approx([1.5, 1.25])


def test_only_vectors_are_mixed() -> None:
    mixed = mix([CLONE, CLONE], [1, 1])
    assert (mixed.codes, mixed.transcript, mixed.codec, mixed.clip_sha256) == (None, None, "", "")
    assert mixed.speaker == pytest.approx(SPEAKER)


@pytest.mark.parametrize(
    ("voices", "weights", "message"),
    [
        ([vector(1, 0)], [1], "two or more voices"),
        ([vector(1, 0), vector(0, 1)], [1], "a weight for each"),
        ([vector(1, 0), VOICES["designed"]], [1, 1], "only voices with a speaker vector"),
        ([vector(1, 0), VOICES["preset"]], [1, 1], "only voices with a speaker vector"),
        ([vector(1, 0), vector(1, 0, 0)], [1, 1], "different models"),
        ([vector(1, 0), vector(1, 0, encoder="two")], [1, 1], "different models"),
        *(([vector(1, 0), vector(0, 1)], weights, "weights must") for weights in ([-1, 2], [0, 0], [1e308, 1e308])),
        *(([vector(1, 0), vector(0, 1)], [1, bad], "weights must") for bad in (float("nan"), float("inf"))),
    ],
)
def test_what_does_not_mix(voices: list[Voice], weights: list[float], message: str) -> None:
    with pytest.raises(VoiceError, match=message):
        mix(voices, weights)
