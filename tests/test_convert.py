"""The converter: what llama.cpp's own writes, plus our extras; or an error that names what is wrong, and no files."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import tiny

from qwen3tts_convert import ConvertedPair, convert, quantize
from qwen3tts_convert.checkpoint import Checkpoint
from qwen3tts_convert.weights import FloatArray, Weights
from qwen3tts_gguf.errors import CheckpointError, ModelFileError, OptionError
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model import schema
from qwen3tts_gguf.model.sampling_defaults import GenerationDefaults

HERE = Path(__file__).resolve().parent
Key = schema.Key
Json = dict[str, Any]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Base checkpoint. Not to be written to."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-base")


@pytest.fixture(scope="session")
def f32_pair(base: Path, tmp_path_factory: pytest.TempPathFactory) -> ConvertedPair:
    return convert(base, tmp_path_factory.mktemp("f32"), type="f32", codec_type="f32")


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """A copy of the Base checkpoint, to be damaged."""
    return Path(shutil.copytree(base, tmp_path / "tiny-base"))


@pytest.fixture(scope="session")
def manifest() -> Json:
    files: Json = json.loads((HERE / "golden" / "manifest.json").read_text(encoding="utf-8"))["files"]
    return files


@pytest.fixture(scope="session")
def manifest_maker() -> ModuleType:
    """golden/make_manifest.py: describes a file the way the manifest does."""
    spec = importlib.util.spec_from_file_location("make_manifest", HERE / "golden" / "make_manifest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(path: Path) -> dict[str, FloatArray]:
    """Every tensor of a file as float32, in NumPy's order of axes."""
    return {
        name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1])
        for name, t in tensors(path).items()
    }


def keys(path: Path) -> Json:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def edit_json(path: Path, *where: str, value: object) -> None:
    """Set the value at a path of keys."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    target = whole
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
    path.write_text(json.dumps(whole), encoding="utf-8")


def edit_weights(folder: Path, edit: Callable[[dict[str, FloatArray]], object]) -> None:
    """Rewrite model.safetensors of a folder after `edit` on its tensors."""
    weights = dict(Weights(folder))
    edit(weights)
    dtype = "F32" if folder.name == "speech_tokenizer" else "BF16"
    tiny.write_safetensors(folder / "model.safetensors", weights, dtype)


# -- llama.cpp's converter ---------------------------------------------------------------------------------------------

# Tensors whose type is ours on purpose, at the outtypes llama.cpp has (--codec-type f16): pattern -> our type.
TYPE_POLICY = {
    r"a\.(blk|conv|asp)|mm\.a": "F32",  # speaker encoder
    r"a\.gen\.wav\.quant": "F32",
    r"a\.gen\.wav": "F16",  # llama.cpp lets these follow the outtype
    r"a\.gen\.code\.blk\.\d+\.ffn_down": "Q8_0",  # F32 there
}
# Counts the codec encoder here.
KEY_POLICY = {"general.size_label"}
EXTRA_TALKER_KEYS = {
    Key.MODEL_TYPE,
    Key.MODEL_SIZE,
    Key.SOURCE,
    Key.SOURCE_FILES,
    Key.SOURCE_SHA256,
    Key.CONVERTER,
    Key.GROUP_NAMES,
    Key.GROUP_SHA256,
    Key.LANGUAGE_NAMES,
    Key.LANGUAGE_IDS,
    *(Key.GENERATION + field for field in vars(GenerationDefaults())),
}
EXTRA_MMPROJ_KEYS = {
    Key.MODEL_TYPE,
    Key.MODEL_SIZE,
    Key.SOURCE,
    Key.SOURCE_FILES,
    Key.SOURCE_SHA256,
    Key.CONVERTER,
    Key.GROUP_NAMES,
    Key.GROUP_SHA256,
    Key.PREDICTOR_ROPE_THETA,
    Key.DECODER_HEADS,
    Key.DECODER_WINDOW,
    Key.DECODER_ROPE_THETA,
    Key.DECODER_EPS,
    Key.ENCODER_HEADS,
    Key.ENCODER_ROPE_THETA,
    Key.ENCODER_EPS,
    Key.SPEAKER_DILATIONS,
}


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
def test_both_files_are_what_llama_cpps_converter_writes_and_our_extras(
    outtype: str, base: Path, tmp_path: Path, manifest: Json, manifest_maker: ModuleType
) -> None:
    pair = convert(base, tmp_path, type=outtype)
    for kind, path, extra_keys in (
        ("talker", pair.talker, EXTRA_TALKER_KEYS),
        ("mmproj", pair.mmproj, EXTRA_MMPROJ_KEYS),
    ):
        ours, theirs = manifest_maker.contents(path), manifest[kind][outtype]
        our_tensors = {name: (shape, type) for name, shape, type in ours["tensors"]}
        their_tensors = {name: (shape, type) for name, shape, type in theirs["tensors"]}
        extras = our_tensors.keys() - their_tensors.keys()
        assert their_tensors.keys() <= our_tensors.keys()
        assert {name.split(".")[1] for name in extras} == ({"codec_enc"} if kind == "mmproj" else set())
        for name, (shape, their_type) in their_tensors.items():
            assert our_tensors[name][0] == shape, name
            policy = next((type for pattern, type in TYPE_POLICY.items() if re.match(pattern, name)), None)
            assert our_tensors[name][1] in (their_type, policy), name

        their_keys = {key: value for key, value in theirs["keys"].items() if key not in KEY_POLICY}
        if kind == "talker":
            # In the tiny configuration pad_token_id comes after codec_pad_id: llama.cpp's converter then names the
            # padding after it, and llama.cpp's pipeline does not find it.
            tokens = keys(path)["tokenizer.ggml.tokens"]
            tokens[tokens.index("<|codec_pad|>")] = "<|pad_token|>"
            ours["keys"]["tokenizer.ggml.tokens"] |= manifest_maker.describe(tokens)
        assert {key: ours["keys"].get(key) for key in their_keys} == their_keys
        assert ours["keys"].keys() - theirs["keys"].keys() == extra_keys


def test_talker_and_predictor_types_are_llama_cpps_at_every_float_type(manifest: Json) -> None:
    for kind in ("talker", "mmproj"):
        for outtype in ("f32", "f16", "bf16"):
            theirs = {name: (tuple(shape), type) for name, shape, type in manifest[kind][outtype]["tensors"]}
            theirs = {name: value for name, value in theirs.items() if not re.match(r"a\.(?!gen\.code)|mm", name)}
            ours = quantize.choose_types({name: shape for name, (shape, _) in theirs.items()}, outtype, "f16")
            assert {name: type.name for name, type in ours.items()} == {
                name: type for name, (_, type) in theirs.items()
            }


# -- values ------------------------------------------------------------------------------------------------------------


def test_f32_files_hold_the_checkpoints_values(base: Path, f32_pair: ConvertedPair) -> None:
    model, codec = Weights(base), Weights(base / "speech_tokenizer")
    talker, mmproj = values(f32_pair.talker), values(f32_pair.mmproj)
    at = "talker.code_predictor"
    for ours, theirs in {
        "blk.2.ffn_down.weight": "talker.model.layers.2.mlp.down_proj.weight",
        "blk.0.attn_norm.weight": "talker.model.layers.0.input_layernorm.weight",
        "output.weight": "talker.codec_head.weight",
    }.items():
        np.testing.assert_array_equal(talker[ours], model[theirs])
    for ours, theirs in {
        "a.gen.code.blk.1.attn_k.weight": f"{at}.model.layers.1.self_attn.k_proj.weight",
        "a.gen.code.proj_in.bias": f"{at}.small_to_mtp_projection.bias",
        "a.gen.code.out_embd.weight": "talker.model.codec_embedding.weight",
        "a.blk.2.res2.6.weight": "speaker_encoder.blocks.2.res2net_block.blocks.6.conv.weight",
        "mm.a.fc.bias": "speaker_encoder.fc.bias",
    }.items():
        np.testing.assert_array_equal(mmproj[ours], model[theirs])
    for ours, theirs in {
        "a.gen.wav.up.blk.1.dwconv.weight": "decoder.upsample.1.1.dwconv.conv.weight",
        "a.gen.wav.dac.blk.3.res.2.conv1.weight": "decoder.decoder.4.block.4.conv1.conv.weight",
        "a.codec_enc.blk.3.down.weight": "encoder.encoder.layers.12.conv.weight",
        "a.codec_enc.conv_out.bias": "encoder.encoder.layers.14.conv.bias",
    }.items():
        np.testing.assert_array_equal(mmproj[ours], codec[theirs])
    heads = np.stack([model[f"{at}.lm_head.{i}.weight"] for i in range(15)])
    np.testing.assert_array_equal(mmproj["a.gen.code.head.weight"], heads)
    projection = codec["decoder.quantizer.rvq_rest.output_proj.weight"]
    np.testing.assert_array_equal(mmproj["a.gen.wav.quant.rest.out_proj.weight"], projection[:, :, 0])


def test_token_table_is_the_projected_text_embedding_above_the_codec_embedding(
    base: Path, f32_pair: ConvertedPair
) -> None:
    w = {name.rpartition("talker.")[2]: array.astype(np.float64) for name, array in Weights(base).items()}
    at = "text_projection.linear_fc"
    inner = w["model.text_embedding.weight"] @ w[f"{at}1.weight"].T + w[f"{at}1.bias"]
    text = (inner / (1 + np.exp(-inner))) @ w[f"{at}2.weight"].T + w[f"{at}2.bias"]
    table = values(f32_pair.talker)["token_embd.weight"]
    np.testing.assert_allclose(table[: len(text)], text, atol=2e-6 * np.abs(text).max())
    np.testing.assert_array_equal(table[len(text) :], w["model.codec_embedding.weight"])


def test_snake_factors_and_codebooks_are_folded(base: Path, f32_pair: ConvertedPair) -> None:
    codec, mmproj = Weights(base / "speech_tokenizer"), values(f32_pair.mmproj)
    alpha, beta = (np.exp(codec[f"decoder.decoder.5.{name}"].astype(np.float64)) for name in ("alpha", "beta"))
    np.testing.assert_allclose(mmproj["a.gen.wav.dac.post_snake.alpha"], alpha, rtol=1e-6)
    np.testing.assert_allclose(mmproj["a.gen.wav.dac.post_snake.beta"], 1 / (beta + 1e-9), rtol=1e-6)
    for ours, theirs, sums in (
        ("a.gen.wav.quant.rest", "decoder.quantizer.rvq_rest.vq.layers.14._codebook", "embedding_sum"),
        (
            "a.codec_enc.quant.rest",
            "encoder.quantizer.acoustic_residual_vector_quantizer.layers.14.codebook",
            "embed_sum",
        ),
    ):
        book = codec[f"{theirs}.{sums}"] / codec[f"{theirs}.cluster_usage"][:, None]
        np.testing.assert_allclose(mmproj[f"{ours}.codebook.weight"][14], book, rtol=1e-6)


def test_a_code_that_was_never_used_has_a_finite_vector(copy: Path, tmp_path: Path) -> None:
    usage = "decoder.quantizer.rvq_first.vq.layers.0._codebook.cluster_usage"
    edit_weights(copy / "speech_tokenizer", lambda w: w[usage].__setitem__(7, 0))
    book = values(convert(copy, tmp_path / "out").mmproj)["a.gen.wav.quant.first.codebook.weight"]
    sums = Weights(copy / "speech_tokenizer")[usage.replace("cluster_usage", "embedding_sum")]
    np.testing.assert_allclose(book[7], sums[7] / np.float32(1e-5), rtol=1e-6)


def test_sharded_weights_give_the_same_tensors(base: Path, tmp_path: Path) -> None:
    sharded = tiny.write_checkpoint(tmp_path / "sharded", shards=3)
    a, b = convert(base, tmp_path / "a"), convert(sharded, tmp_path / "b")
    for ours, theirs in ((a.talker, b.talker), (a.mmproj, b.mmproj)):
        whole, parts = tensors(ours), tensors(theirs)
        assert list(whole) == list(parts)
        assert all(np.array_equal(whole[name].data, parts[name].data) for name in whole)
    assert "model.safetensors.index.json" in keys(b.talker)[Key.SOURCE_FILES]


# -- types -------------------------------------------------------------------------------------------------------------

# Error of a tensor relative to its values, both as root mean squares.
PRECISION = {
    "f32": 0,
    "f16": 5e-4,
    "bf16": 3e-3,
    "q8_0": 8e-3,
    "q6_k": 0.03,
    "q5_k_m": 0.06,
    "q4_k_m": 0.1,
    "q4_0": 0.1,
}


@pytest.mark.parametrize(("type", "codec_type"), [*((type, "f16") for type in quantize.TYPES), ("q8_0", "f32")])
def test_every_type_converts(type: str, codec_type: str, base: Path, tmp_path: Path, f32_pair: ConvertedPair) -> None:
    pair = convert(base, tmp_path, type=type, codec_type=codec_type)
    assert (pair.talker.name, pair.mmproj.name) == (
        f"tiny-base-{type.upper()}.gguf",
        f"mmproj-tiny-base-{type.upper()}.gguf",
    )
    assert keys(pair.talker)["general.file_type"] == keys(pair.mmproj)["general.file_type"] == quantize.file_type(type)
    for ours, exact in ((pair.talker, f32_pair.talker), (pair.mmproj, f32_pair.mmproj)):
        stored, wanted = values(ours), values(exact)
        for name, value in wanted.items():
            limit = PRECISION[codec_type if name.startswith(("a.gen.wav", "a.codec_enc")) else type]
            assert np.linalg.norm(stored[name] - value) <= limit * np.linalg.norm(value), name


def test_predictor_ffn_down_is_never_f16() -> None:
    name = "a.gen.code.blk.0.ffn_down.weight"
    for row_length in (3072, 160, 100):
        for type in quantize.TYPES:
            chosen = quantize.choose_types({name: (1024, row_length)}, type, "f16")[name]
            assert chosen not in (GgmlType.F16, GgmlType.BF16)
            assert row_length % chosen.block_size == 0


def test_k_quant_mixes_give_more_bits_to_the_layers_llama_cpp_chooses() -> None:
    shapes = {f"blk.{i}.{part}.weight": (1024, 1024) for i in range(28) for part in ("attn_v", "attn_q", "ffn_down")}
    types = quantize.choose_types(shapes, "q4_k_m", "f16")
    chosen = {i for i in range(28) if types[f"blk.{i}.attn_v.weight"] == GgmlType.Q6_K}
    assert chosen == {0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27}
    assert chosen == {i for i in range(28) if types[f"blk.{i}.ffn_down.weight"] == GgmlType.Q6_K}
    assert {types[f"blk.{i}.attn_q.weight"] for i in range(28)} == {GgmlType.Q4_K}


def test_rows_that_a_block_type_cannot_hold_fall_back() -> None:
    name = "blk.9.attn_q.weight"
    fallbacks = {
        ("q4_k_m", 96): GgmlType.Q5_0,
        ("q5_k_m", 96): GgmlType.Q5_1,
        ("q6_k", 96): GgmlType.Q8_0,
        ("q4_0", 100): GgmlType.F16,
        ("q4_k_m", 100): GgmlType.F16,
    }
    for (type, row_length), wanted in fallbacks.items():
        assert quantize.choose_types({name: (64, row_length)}, type, "f16")[name] == wanted


def test_the_table_can_be_shown() -> None:
    shown = dict(quantize.table("q4_k_m", "f32"))
    assert shown["token table"] == "Q8_0"
    assert shown["codec: other weights"] == "F32"
    assert shown["talker: v, ffn_down"] == "Q4_K, Q6_K in some layers"


# -- keys --------------------------------------------------------------------------------------------------------------


def test_provenance_is_in_both_files(base: Path, tmp_path: Path) -> None:
    pair = convert(base, tmp_path, revision="abc123", name="my-voice")
    assert pair.talker.name == "my-voice-Q8_0.gguf"
    for path in (pair.talker, pair.mmproj):
        found = keys(path)
        assert (found[Key.SOURCE], found[Key.REVISION]) == ("tiny-base", "abc123")
        assert found["general.name"] == "My Voice"
        digests = dict(zip(found[Key.SOURCE_FILES], found[Key.SOURCE_SHA256], strict=True))
        assert {"config.json", "merges.txt", "speech_tokenizer/model.safetensors"} <= digests.keys()
        for name, digest in digests.items():
            assert hashlib.sha256((base / name).read_bytes()).hexdigest() == digest


def test_custom_voice_has_speakers_and_no_speaker_encoder(tmp_path: Path) -> None:
    checkpoint = tiny.write_checkpoint(tmp_path / "presets", model_type="custom_voice")
    pair = convert(checkpoint, tmp_path / "out")
    talker, mmproj = keys(pair.talker), keys(pair.mmproj)
    assert dict(zip(talker[Key.SPEAKER_NAMES], talker[Key.SPEAKER_IDS], strict=True)) == tiny.SPEAKERS
    dialects = dict(zip(talker[Key.SPEAKER_NAMES], talker[Key.SPEAKER_DIALECTS], strict=True))
    assert dialects == {speaker: dialect or "" for speaker, dialect in tiny.DIALECTS.items()}
    assert "<|spk_vivian|>" in talker["tokenizer.ggml.tokens"]
    assert mmproj["clip.has_audio_encoder"] is False
    assert not any(key.startswith("clip.audio") for key in mmproj)
    assert not any(re.match(r"a\.(blk|conv|asp)|mm", name) for name in tensors(pair.mmproj))


def test_voice_design_has_neither(tmp_path: Path) -> None:
    pair = convert(tiny.write_checkpoint(tmp_path / "design", model_type="voice_design"), tmp_path / "out")
    assert keys(pair.talker)[Key.MODEL_TYPE] == "voice_design"
    assert Key.SPEAKER_NAMES not in keys(pair.talker)
    assert keys(pair.mmproj)["clip.has_audio_encoder"] is False


def test_generation_defaults_come_back_as_they_were(copy: Path, tmp_path: Path) -> None:
    edit_json(copy / "generation_config.json", "subtalker_temperature", value=0.7)
    found = keys(convert(copy, tmp_path / "out").talker)
    stored = {field: found[Key.GENERATION + field] for field in vars(GenerationDefaults())}
    assert GenerationDefaults.from_mapping(stored) == GenerationDefaults(subtalker_temperature=0.7)


def test_without_a_generation_config_the_official_defaults_are_written(copy: Path, tmp_path: Path) -> None:
    (copy / "generation_config.json").unlink()
    found = keys(convert(copy, tmp_path / "out").talker)
    assert found[Key.GENERATION + "repetition_penalty"] == 1.05
    assert "general.sampling.temp" not in found


def test_tokenizer_json_serves_where_vocab_json_is_missing(copy: Path, tmp_path: Path) -> None:
    wanted = keys(convert(copy, tmp_path / "a").talker)
    vocabulary = json.loads((copy / "vocab.json").read_text(encoding="utf-8"))
    lines = (copy / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    settings = json.loads((copy / "tokenizer_config.json").read_text(encoding="utf-8"))
    added = [{"id": int(i), **token} for i, token in settings["added_tokens_decoder"].items()]
    model = {"vocab": vocabulary, "merges": [line.split(" ") for line in lines]}
    (copy / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": added}), encoding="utf-8")
    (copy / "vocab.json").unlink()
    (copy / "merges.txt").unlink()
    found = keys(convert(copy, tmp_path / "b").talker)
    for key in ("tokens", "token_type", "merges"):
        assert found[f"tokenizer.ggml.{key}"] == wanted[f"tokenizer.ggml.{key}"]


# -- what is refused ---------------------------------------------------------------------------------------------------

LAYER_NORM = "talker.model.layers.1.input_layernorm.weight"
CODEC_BIAS = "decoder.decoder.0.conv.bias"


def nan_at(name: str) -> Callable[[dict[str, FloatArray]], object]:
    return lambda weights: weights[name].__setitem__(0, np.nan)


@pytest.mark.parametrize(
    ("folder", "edit", "message"),
    [
        (".", lambda w: w.pop(LAYER_NORM), rf"tensor {LAYER_NORM} is missing"),
        (".", lambda w: w.pop("speaker_encoder.fc.bias"), r"tensor speaker_encoder\.fc\.bias is missing"),
        ("speech_tokenizer", lambda w: w.pop(CODEC_BIAS), rf"tensor {CODEC_BIAS} is missing"),
        (".", lambda w: w.update({LAYER_NORM: np.ones(64)}), rf"{LAYER_NORM} has shape \[64\], .* requires \[128\]"),
        (".", lambda w: w.update({"talker.extra": np.ones(3)}), r"tensor talker\.extra is not part of"),
        ("speech_tokenizer", lambda w: w.update({"decoder.new": np.ones(3)}), r"tensor decoder\.new is not part of"),
        (".", nan_at(LAYER_NORM), rf"tensor {LAYER_NORM} contains NaN or infinity"),
        (".", nan_at("talker.code_predictor.lm_head.7.weight"), r"lm_head\.7\.weight contains NaN or infinity"),
        (".", nan_at("talker.text_projection.linear_fc2.bias"), r"linear_fc2\.bias contains NaN or infinity"),
        ("speech_tokenizer", nan_at(CODEC_BIAS), rf"tensor {CODEC_BIAS} contains NaN or infinity"),
        (
            "speech_tokenizer",
            lambda w: w["decoder.decoder.0.conv.weight"].fill(1e6),
            r"from decoder\.decoder\.0\.conv\.weight\) reaches 1e\+06, which is too large for F16",
        ),
    ],
)  # fmt: skip
def test_unsound_tensors_are_named(
    folder: str, edit: Callable[[dict[str, FloatArray]], object], message: str, copy: Path, tmp_path: Path
) -> None:
    edit_weights(copy / folder, edit)
    with pytest.raises(CheckpointError, match=message):
        convert(copy, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("file", "where", "value", "message"),
    [
        ("config.json", ["tokenizer_type"], "qwen3_tts_tokenizer_25hz", "tokenizer_type .* 25 Hz"),
        ("config.json", ["tts_model_type"], "singer", "tts_model_type is 'singer', not one of base"),
        ("config.json", ["talker_config", "vocab_size"], 4096, "vocab_size is 4096, only 3072"),
        ("config.json", ["talker_config", "num_code_groups"], 32, "num_code_groups is 32, only 16"),
        ("config.json", ["talker_config", "hidden_act"], "gelu", "hidden_act is 'gelu', only 'silu'"),
        ("config.json", ["talker_config", "attention_bias"], True, "attention_bias is True, only False"),
        ("config.json", ["talker_config", "hidden_size"], None, "hidden_size is missing"),
        ("config.json", ["talker_config", "rope_scaling", "rope_type"], "yarn", "rope_type is 'yarn'"),
        ("config.json", ["talker_config", "codec_bos_id"], 3072, "codec_bos_id contains 3072"),
        ("config.json", ["talker_config", "code_predictor_config", "num_hidden_layers"], "2", "not a positive integer"),
        ("config.json", ["tts_pad_token_id"], 5, "tts_pad_token_id is 5, which is .* not '<tts_pad>'"),
        ("config.json", ["speaker_encoder_config", "enc_dim"], 192, "enc_dim is 192, only 128"),
        ("speech_tokenizer/config.json", ["encoder_valid_num_quantizers"], 8, "is 8, only 16"),
        ("speech_tokenizer/config.json", ["decoder_config", "upsample_rates"], [8, 5, 4, 2], "1280 samples per frame"),
        ("speech_tokenizer/config.json", ["encoder_config", "kernel_size"], 5, "kernel_size is 5, only 7"),
        ("tokenizer_config.json", ["tokenizer_class"], "LlamaTokenizer", "tokenizer_class is 'LlamaTokenizer'"),
        ("generation_config.json", ["temperature"], "warm", "generation_config.json: "),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be_run_are_refused(
    file: str, where: list[str], value: object, message: str, copy: Path, tmp_path: Path
) -> None:
    edit_json(copy / file, *where, value=value)
    with pytest.raises(CheckpointError, match=message) as raised:
        convert(copy, tmp_path / "out")
    assert file in str(raised.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "config.json: no such file"),
        ("config.json", b"{", "config.json: cannot be read as JSON"),
        ("model.safetensors", None, "neither model.safetensors nor model.safetensors.index.json"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "not a safetensors file.*git-lfs"),
        ("speech_tokenizer/config.json", None, "speech_tokenizer/config.json: no such file"),
        ("vocab.json", None, "neither tokenizer.json nor vocab.json"),
        ("merges.txt", b"#version: 0.2\na b c\n", "merges.txt: .* is not a merge"),
    ],
)
def test_missing_and_damaged_files_are_named(
    file: str, content: bytes | None, message: str, copy: Path, tmp_path: Path
) -> None:
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        convert(copy, tmp_path / "out")


def test_a_file_that_ends_too_early_is_named(copy: Path, tmp_path: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor .* is truncated"):
        convert(copy, tmp_path / "out")


@pytest.mark.parametrize(("option", "message"), [("type", "unknown type 'q3_k'"), ("codec_type", "unknown codec type")])
def test_an_unknown_type_lists_the_known_ones(option: str, message: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"{message}.*f16"):
        convert(base, tmp_path, **{option: "q3_k"})  # type: ignore[arg-type]


def test_a_name_must_be_one_part_of_a_path(base: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="file name"):
        convert(base, tmp_path, name="../elsewhere")


# -- nothing half done -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["hashing model", "writing mmproj", "writing tiny"])
def test_ctrl_c_leaves_nothing(at: str, base: Path, tmp_path: Path) -> None:
    def interrupt(doing: str, n_done: int, n_bytes: int) -> None:
        if doing.startswith(at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(base, tmp_path, on_progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_an_older_pair_stays_whole_if_a_new_one_fails(base: Path, copy: Path, tmp_path: Path) -> None:
    pair = convert(base, tmp_path / "out")
    before = [path.read_bytes() for path in (pair.talker, pair.mmproj)]
    edit_weights(copy, nan_at("talker.model.norm.weight"))
    with pytest.raises(CheckpointError):
        convert(copy, tmp_path / "out")
    assert [path.read_bytes() for path in (pair.talker, pair.mmproj)] == before
    assert sorted((tmp_path / "out").iterdir()) == sorted([pair.talker, pair.mmproj])


class FullDisk(io.FileIO):
    """A file that can take so many bytes and no more."""

    n_free = 1_000_000

    def write(self, data: Any, /) -> int:
        self.n_free -= memoryview(data).nbytes
        if self.n_free < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_a_disk_that_fills_up_leaves_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_full(path: Path, mode: str) -> io.BufferedWriter:
        return io.BufferedWriter(FullDisk(path, "w"))

    monkeypatch.setattr(gguf.gguf_writer, "open", open_full, raising=False)
    with pytest.raises(ModelFileError, match=r"mmproj-tiny-base-Q8_0\.gguf cannot be written: the disk is full"):
        convert(base, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_disk_too_small_is_an_error_before_writing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000))
    with pytest.raises(ModelFileError, match="MB free, the two files need"):
        convert(base, tmp_path)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_byte_read_and_written(base: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    convert(base, tmp_path, on_progress=lambda *step: seen.append(step))
    counts = [n_done for _, n_done, _ in seen]
    assert counts == sorted(counts)
    assert counts[-1] == seen[-1][2]
    assert [doing for doing in dict.fromkeys(step[0] for step in seen) if doing.startswith("writing")] == [
        "writing mmproj-tiny-base-Q8_0.gguf",
        "writing tiny-base-Q8_0.gguf",
    ]


# -- where checkpoints come from ---------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Stands in for huggingface_hub; collects what is asked of it."""
    asked: list[tuple[str, str | None]] = []
    module = ModuleType("huggingface_hub")

    def snapshot_download(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision))
        if repo_id.startswith("nobody/"):
            raise OSError("offline mode is enabled\nlong explanation")
        return str(module.snapshot)

    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def test_a_hub_id_is_fetched_and_names_the_files(hub: list[tuple[str, str | None]], base: Path, tmp_path: Path) -> None:
    snapshot = Path(shutil.copytree(base, tmp_path / "snapshots" / "0123abcd"))
    sys.modules["huggingface_hub"].snapshot = snapshot  # type: ignore[attr-defined]
    pair = convert("Qwen/Qwen3-TTS-12Hz-0.6B-Base", tmp_path / "out", revision="main")
    assert hub == [("Qwen/Qwen3-TTS-12Hz-0.6B-Base", "main")]
    assert pair.talker.name == "Qwen3-TTS-12Hz-0.6B-Base-Q8_0.gguf"
    found = keys(pair.mmproj)
    assert (found[Key.SOURCE], found[Key.REVISION]) == ("Qwen/Qwen3-TTS-12Hz-0.6B-Base", "0123abcd")
    assert found["general.name"] == "Qwen3 TTS 12Hz 0.6B Base"


def test_a_hub_that_cannot_be_reached_is_one_line(hub: list[tuple[str, str | None]], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nobody/nothing .* cannot be downloaded .*: offline mode is enabled"):
        convert("nobody/nothing", tmp_path)


def test_without_huggingface_hub_the_error_shows_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'qwen3tts-gguf\[hub\]'"):
        convert("Qwen/Qwen3-TTS-12Hz-0.6B-Base", tmp_path)


def test_a_missing_folder_does_not_ask_the_hub(hub: list[tuple[str, str | None]], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        convert(tmp_path / "nowhere", tmp_path)
    assert not hub


def test_a_folder_is_taken_before_a_hub_id(hub: list[tuple[str, str | None]], base: Path) -> None:
    assert Checkpoint.find(str(base)).name == "tiny-base"
    assert not hub


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, qwen3tts_convert; print(*{'numpy', 'gguf', 'llama_cpp', 'huggingface_hub'} & set(sys.modules))"
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == ""
