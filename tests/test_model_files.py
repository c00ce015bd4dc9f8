"""Finding the two files of a model, holding them against the schema and against each other."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from conftest import beginning
from numpy.typing import NDArray

from qwen3tts_convert import ConvertedPair, convert
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.errors import ModelFileError
from qwen3tts_gguf.model import schema
from qwen3tts_gguf.model.files import MmprojFile, ModelFiles, TalkerFile, find_mmproj, find_talker
from qwen3tts_gguf.model.schema import Key
from qwen3tts_gguf.model.vocabulary import Vocabulary

Pair = Callable[..., ConvertedPair]
Tensors = dict[str, tuple[NDArray[Any], gguf.GGMLQuantizationType]]
Keys = dict[str, tuple[Any, list[gguf.GGUFValueType]]]


def read(path: Path) -> tuple[Keys, Tensors]:
    """Keys and tensors as gguf's own reader sees them; a tensor's array is in NumPy order, blocks as bytes."""
    reader = gguf.GGUFReader(path)
    keys = {name: (field.contents(), field.types) for name, field in reader.fields.items() if "GGUF." not in name}
    return keys, {tensor.name: (np.array(tensor.data), tensor.tensor_type) for tensor in reader.tensors}


def write(path: Path, keys: Keys, tensors: Tensors, *, alignment: int | None = None) -> Path:
    writer = gguf.GGUFWriter(path, keys["general.architecture"][0])
    if alignment is not None:
        writer.data_alignment = alignment
    for name, (value, types) in keys.items():
        if name != "general.architecture":
            writer.add_key_value(name, value, types[0], types[1] if len(types) > 1 else None)
    for name, (data, type) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def talker(pair: Pair) -> tuple[Keys, Tensors]:
    return read(pair().talker)


@pytest.fixture(scope="module")
def mmproj(pair: Pair) -> tuple[Keys, Tensors]:
    return read(pair().mmproj)


def copied(pair: ConvertedPair, folder: Path, name: str = "model") -> ConvertedPair:
    folder.mkdir(exist_ok=True)
    copies = ConvertedPair(folder / f"{name}.gguf", folder / f"mmproj-{name}.gguf")
    shutil.copyfile(pair.talker, copies.talker)
    shutil.copyfile(pair.mmproj, copies.mmproj)
    return copies


# -- finding -----------------------------------------------------------------------------------------------------------


def test_a_folder_with_one_pair_is_found_by_either_half(pair: Pair, tmp_path: Path) -> None:
    model = copied(pair(), tmp_path)
    assert find_talker(tmp_path) == find_talker(model.talker) == model.talker
    assert find_mmproj(tmp_path) == find_mmproj(model.talker) == find_mmproj(model.mmproj) == model.mmproj
    files = ModelFiles(tmp_path)
    assert (files.talker.file.path, files.mmproj.file.path) == (model.talker, model.mmproj)


def test_several_talkers_are_listed(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf", "mmproj-a.gguf", "mmproj-b.gguf", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        ModelFileError, match=r"there are several models in this folder, give one of these files: a\.gguf, b\.gguf"
    ) as caught:
        find_talker(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert find_mmproj(tmp_path / "b.gguf") == tmp_path / "mmproj-b.gguf"


def test_a_single_mmproj_of_another_name_will_do(pair: Pair, tmp_path: Path) -> None:
    model = copied(pair(), tmp_path)
    other = model.mmproj.rename(tmp_path / "mmproj-other-name.gguf")
    assert find_mmproj(model.talker) == other
    (tmp_path / "mmproj-third.gguf").touch()
    with pytest.raises(ModelFileError, match=r"its mmproj file, mmproj-model\.gguf, is not in the same folder"):
        find_mmproj(model.talker)


def test_the_other_half_may_be_named(pair: Pair, tmp_path: Path) -> None:
    model = copied(pair(), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = model.mmproj.rename(tmp_path / "elsewhere" / "half.gguf")
    assert ModelFiles(model.talker, elsewhere).mmproj.file.path == elsewhere


@pytest.mark.parametrize("find", [find_talker, find_mmproj, ModelFiles])
def test_what_is_not_there_is_an_error(tmp_path: Path, find: Callable[[Path], object]) -> None:
    for path in (tmp_path / "absent", tmp_path / "absent.gguf"):
        with pytest.raises(ModelFileError, match=f"{path}: no such file or folder"):
            find(path)
    with pytest.raises(ModelFileError, match=f"{tmp_path}: there is no talker"):
        find(tmp_path)
    (tmp_path / "model.gguf").touch()
    (tmp_path / "mmproj-model.gguf").touch()
    if find is ModelFiles:
        with pytest.raises(ModelFileError, match=r"model\.gguf: cannot be opened"):
            find(tmp_path)


def test_a_missing_half_is_named(pair: Pair, tmp_path: Path) -> None:
    model = copied(pair(), tmp_path)
    model.mmproj.unlink()
    for path in (tmp_path, model.talker):
        with pytest.raises(
            ModelFileError, match=r"its mmproj file, mmproj-model\.gguf, is not in the same folder.*`mmproj`"
        ):
            ModelFiles(path)
    with pytest.raises(ModelFileError, match=r"absent\.gguf: no such file"):
        ModelFiles(model.talker, tmp_path / "absent.gguf")


def test_the_halves_are_not_taken_for_each_other(pair: Pair, tmp_path: Path) -> None:
    model = copied(pair(), tmp_path)
    with pytest.raises(ModelFileError, match="this is the mmproj file; give the talker"):
        ModelFiles(model.mmproj)
    with pytest.raises(ModelFileError, match=f"{model.talker}: not the mmproj file"):
        ModelFiles(model.talker, model.talker)
    renamed = model.mmproj.rename(tmp_path / "half.gguf")
    with pytest.raises(ModelFileError, match=f"{renamed}: .*architecture is 'clip', not 'qwen3tts'"):
        TalkerFile(renamed)


# -- halves of two models ----------------------------------------------------------------------------------------------


def test_halves_of_two_sizes_are_refused(pair: Pair) -> None:
    small, large = pair(), pair(size="tiny-1.7b")
    with pytest.raises(ModelFileError, match=r"belongs to another model than .* width 192, not 128") as caught:
        ModelFiles(small.talker, large.mmproj)
    assert large.mmproj.name in str(caught.value) and small.talker.name in str(caught.value)


def test_halves_of_two_checkpoints_are_refused(pair: Pair, tmp_path: Path) -> None:
    other = convert(tiny.write_checkpoint(tmp_path / "other", seed=1), tmp_path, type="f32", codec_type="f32")
    with pytest.raises(ModelFileError, match="they were converted from different checkpoints"):
        ModelFiles(pair().talker, other.mmproj)


def test_halves_of_two_types_of_one_checkpoint_fit(pair: Pair) -> None:
    assert ModelFiles(pair().talker, pair("q8_0").mmproj).mmproj.predictor.talker_hidden == 128


# -- what is missing or wrong ------------------------------------------------------------------------------------------


def refusal(open_file: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        open_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    "name", ["token_embd.weight", "output.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.2.ffn_norm.weight"]
)
def test_a_missing_tensor_of_the_talker_is_named(talker: tuple[Keys, Tensors], tmp_path: Path, name: str) -> None:
    keys, tensors = talker
    path = write(tmp_path / "t.gguf", keys, {each: tensors[each] for each in tensors if each != name})
    assert refusal(TalkerFile, path).endswith(f"the tensor {name} is missing")


@pytest.mark.parametrize(
    "name",
    [
        "a.gen.code.head.weight",
        "a.gen.code.blk.1.attn_k.weight",
        "a.gen.code.proj_in.bias",
        "a.gen.wav.quant.rest.codebook.weight",
        "a.gen.wav.tfm.blk.0.ls1.weight",
        "a.gen.wav.up.blk.0.pw1.bias",
        "a.gen.wav.dac.blk.3.res.2.conv2.bias",
        "a.codec_enc.quant.first.codebook.weight",
        "a.codec_enc.tfm.blk.1.ls2.weight",
        "a.asp_attn.bias",
        "a.blk.2.conv_pw2.bias",
    ],
)
def test_a_missing_tensor_of_the_mmproj_is_named(mmproj: tuple[Keys, Tensors], tmp_path: Path, name: str) -> None:
    keys, tensors = mmproj
    path = write(tmp_path / "mmproj-t.gguf", keys, {each: tensors[each] for each in tensors if each != name})
    assert refusal(MmprojFile, path).endswith(f"the tensor {name} is missing")


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blk.1.ffn_up.weight", (255, 128), r"\[255, 128\], expected \[256, 128\]"),
        ("output.weight", (3071, 128), r"\[3071, 128\], expected \[3072, 128\]"),
        ("blk.0.attn_norm.weight", (127,), r"\[127\], expected \[128\]"),
        ("token_embd.weight", (100, 128), r"\[100, 128\], expected \[4096, 128\]"),
    ],
)
def test_a_wrong_shape_of_the_talker_is_named(
    talker: tuple[Keys, Tensors], tmp_path: Path, name: str, shape: tuple[int, ...], expected: str
) -> None:
    keys, tensors = talker
    changed = {**tensors, name: (np.zeros(shape, np.float32), gguf.GGMLQuantizationType.F32)}
    message = refusal(TalkerFile, write(tmp_path / "t.gguf", keys, changed))
    assert re.search(f"{re.escape(name)} has the shape {expected}", message)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("a.gen.code.embd.weight", (15, 2047, 128)),
        ("a.gen.code.head.weight", (15, 64)),
        ("a.gen.wav.pre_conv.weight", (128, 64, 5)),
        ("a.gen.wav.dac.entry.weight", (96, 128)),
        ("a.gen.wav.dac.post_conv.weight", (1, 6, 5)),
        ("a.codec_enc.downsample.weight", (64, 64, 3)),
        ("a.asp_tdnn.weight", (32, 100, 1)),
        ("mm.a.fc.weight", (127, 384, 1)),
    ],
)
def test_a_wrong_shape_of_the_mmproj_is_named(
    mmproj: tuple[Keys, Tensors], tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    keys, tensors = mmproj
    changed = {**tensors, name: (np.zeros(shape, np.float32), gguf.GGMLQuantizationType.F32)}
    message = refusal(MmprojFile, write(tmp_path / "mmproj-t.gguf", keys, changed))
    assert "has the shape" in message and message.split(": ")[1].split(" ")[0] in tensors


def test_a_vector_that_is_not_f32_is_named(
    talker: tuple[Keys, Tensors], mmproj: tuple[Keys, Tensors], tmp_path: Path
) -> None:
    for (keys, tensors), name, open_file in (
        (talker, "blk.0.attn_norm.weight", TalkerFile),
        (mmproj, "a.gen.wav.dac.entry.bias", MmprojFile),
    ):
        half = (tensors[name][0].astype(np.float16), gguf.GGMLQuantizationType.F16)
        path = write(tmp_path / f"{open_file.__name__}.gguf", keys, {**tensors, name: half})
        assert refusal(open_file, path).endswith(f"{name} is stored as F16; vectors must be F32")


@pytest.mark.parametrize("name", [f"qwen3tts.{key}" for key in schema.TalkerConfig.KEYS.values()])
def test_a_missing_key_of_the_talker_is_named(talker: tuple[Keys, Tensors], tmp_path: Path, name: str) -> None:
    keys, tensors = talker
    path = write(tmp_path / "t.gguf", {key: keys[key] for key in keys if key != name}, tensors)
    assert refusal(TalkerFile, path).endswith(f"the key {name} is missing")


@pytest.mark.parametrize("name", [f"clip.gen.audio.{key}" for key in schema.CodePredictorConfig.KEYS.values()])
def test_a_missing_key_of_the_mmproj_is_named(mmproj: tuple[Keys, Tensors], tmp_path: Path, name: str) -> None:
    keys, tensors = mmproj
    path = write(tmp_path / "mmproj-t.gguf", {key: keys[key] for key in keys if key != name}, tensors)
    assert refusal(MmprojFile, path).endswith(f"the key {name} is missing")


U32 = [gguf.GGUFValueType.UINT32]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("qwen3tts.block_count", 0, "impossible value: 0"),
        ("qwen3tts.embedding_length", 1 << 31, "impossible value"),
        ("qwen3tts.attention.head_count_kv", 3, "impossible attention"),
        ("qwen3tts.attention.key_length", 63, "impossible attention"),
        ("qwen3tts.block_count", 2000, "impossible attention"),
    ],
)
def test_impossible_sizes_are_refused(
    talker: tuple[Keys, Tensors], tmp_path: Path, name: str, value: int, message: str
) -> None:
    keys, tensors = talker
    assert message in refusal(TalkerFile, write(tmp_path / "t.gguf", {**keys, name: (value, U32)}, tensors))


def test_an_unknown_kind_of_model_is_refused(talker: tuple[Keys, Tensors], tmp_path: Path) -> None:
    keys, tensors = talker
    changed = {**keys, Key.MODEL_TYPE: ("singer", [gguf.GGUFValueType.STRING])}
    assert refusal(TalkerFile, write(tmp_path / "t.gguf", changed, tensors)).endswith("unknown kind of model 'singer'")


@pytest.mark.parametrize(
    ("name", "value", "types", "message"),
    [
        (Key.DECODER_HEADS, 3, U32, "codec decoder cannot have 3 heads"),
        (Key.DECODER_HEADS, 0, U32, "codec decoder cannot have 0 heads"),
        (Key.DECODER_WINDOW, 0, U32, "window of 0"),
        (Key.DECODER_WINDOW, 1 << 20, U32, "window of 1048576"),
        (Key.ENCODER_HEADS, 5, U32, "codec encoder cannot have 5 heads"),
        (
            Key.SPEAKER_DILATIONS,
            [1, 2],
            [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32],
            "layers contradict each other",
        ),
    ],
)
def test_impossible_geometry_is_refused(
    mmproj: tuple[Keys, Tensors], tmp_path: Path, name: str, value: Any, types: list[gguf.GGUFValueType], message: str
) -> None:
    keys, tensors = mmproj
    path = write(tmp_path / "mmproj-t.gguf", {**keys, name: (value, types)}, tensors)
    assert message in refusal(MmprojFile, path)


# -- without our extras ------------------------------------------------------------------------------------------------


def upstream(half: tuple[Keys, Tensors]) -> tuple[Keys, Tensors]:
    """What of a file llama.cpp's own converter writes."""
    keys, tensors = half
    return (
        {name: value for name, value in keys.items() if not name.startswith("tts.")},
        {name: value for name, value in tensors.items() if not name.startswith("a.codec_enc.")},
    )


@pytest.fixture(scope="module")
def bare(talker: tuple[Keys, Tensors], mmproj: tuple[Keys, Tensors], tmp_path_factory: Any) -> ConvertedPair:
    """A pair without our extras, but for the tiny codec's four heads, which llama.cpp takes for sixteen."""
    folder = tmp_path_factory.mktemp("bare")
    keys, tensors = upstream(mmproj)
    keys[Key.DECODER_HEADS] = mmproj[0][Key.DECODER_HEADS]
    return ConvertedPair(
        write(folder / "bare.gguf", *upstream(talker)), write(folder / "mmproj-bare.gguf", keys, tensors)
    )


def test_a_pair_without_extras_is_a_pair(bare: ConvertedPair, files: ModelFiles) -> None:
    found = ModelFiles(bare.talker)
    assert (found.talker.model_type, found.talker.model_size) == ("", "")
    assert found.talker.config == files.talker.config
    assert found.mmproj.encoder is None and files.mmproj.encoder is not None
    assert found.mmproj.predictor == files.mmproj.predictor
    expected = replace(files.mmproj.decoder, rms_eps=1e-5)  # float32 in our key
    assert found.mmproj.decoder == expected and files.mmproj.decoder.rms_eps == pytest.approx(1e-5)
    assert found.mmproj.speaker_encoder == files.mmproj.speaker_encoder
    assert found.talker.generation == files.talker.generation  # from general.sampling.*


def test_a_pair_without_extras_knows_its_languages(bare: ConvertedPair) -> None:
    found = TalkerFile(bare.talker)
    vocabulary = Vocabulary(found.file, found.file.strings("tokenizer.ggml.tokens"))
    assert vocabulary.languages == tiny.LANGUAGES and vocabulary.speakers == {}


def test_a_pair_without_extras_gives_the_same_speech(bare: ConvertedPair, pair: Pair) -> None:
    options = SpeechOptions(seed=1, max_frames=2, language="english")
    ours, theirs = (TTS(path, n_threads=1) for path in (pair().talker, bare.talker))
    assert theirs.kind == ours.kind == "base"
    assert np.array_equal(beginning(theirs, "Hello.", Voice(), options), beginning(ours, "Hello.", Voice(), options))


def test_what_llama_cpp_has_built_in_stands_in_for_missing_keys(mmproj: tuple[Keys, Tensors], tmp_path: Path) -> None:
    found = MmprojFile(write(tmp_path / "mmproj-t.gguf", *upstream(mmproj)))
    assert found.decoder.n_heads == 16  # the released codec's, whatever this one has
    assert (found.decoder.window, found.decoder.rope_theta, found.decoder.rms_eps) == (72, 10_000.0, 1e-5)
    assert found.predictor.rope_theta == 1_000_000.0
    assert found.speaker_encoder is not None and found.speaker_encoder.dilations == (1, 2, 3, 4, 1)


def test_a_model_without_a_speaker_encoder_is_whole(pair: Pair) -> None:
    files = ModelFiles(pair(model_type="custom_voice").talker)
    assert files.mmproj.speaker_encoder is None and files.talker.model_type == "custom_voice"


def test_names_of_the_files_are_not_looked_at(pair: Pair, tmp_path: Path) -> None:
    files = ModelFiles(copied(pair(), tmp_path, "一 model's [name]").talker)
    assert files.talker.name == "Tiny Base"


def test_a_pair_with_quantized_codebooks_speaks(mmproj: tuple[Keys, Tensors], pair: Pair, tmp_path: Path) -> None:
    """As llama.cpp's converter writes it at q8_0."""
    keys, tensors = mmproj
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    quantized = {
        name: (gguf.quants.quantize(data, q8_0), q8_0) if ".codebook." in name else (data, type)
        for name, (data, type) in tensors.items()
    }
    shutil.copy(pair().talker, tmp_path / "t.gguf")
    write(tmp_path / "mmproj-t.gguf", keys, quantized)
    tts = TTS(tmp_path, n_threads=1)
    assert tts.codec_fingerprint == ""
    reference = np.zeros((3, 16), np.int32)
    voice = Voice(codes=reference, transcript="Hello.", codec="of another file")
    assert beginning(tts, "Hello.", voice, SpeechOptions(max_frames=2)).shape == (2 * 1920,)
