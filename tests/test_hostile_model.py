"""Models made to harm: past the readers' checks of form, what would abort in ggml or llama.cpp is one line instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import test_cli
import test_model_files

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.errors import ModelFileError
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.ggml.graph import Graph
from qwen3tts_gguf.model import geometry, schema
from qwen3tts_gguf.model.files import MmprojFile, TalkerFile
from qwen3tts_gguf.model.gguf_file import GgufFile
from qwen3tts_gguf.model.sampling_defaults import GenerationDefaults
from qwen3tts_gguf.model.schema import Key
from qwen3tts_gguf.nets.code_predictor import CodePredictor
from qwen3tts_gguf.nets.codec_decoder import CodecDecoder
from qwen3tts_gguf.nets.codec_encoder import CodecEncoder
from qwen3tts_gguf.nets.sampling import Sampling

run = test_cli.run

Pair = Callable[..., ConvertedPair]
Half = tuple[test_model_files.Keys, test_model_files.Tensors]

Type = gguf.GGUFValueType
U32, I32, F32, F64, TEXT, FLAG = (
    [type] for type in (Type.UINT32, Type.INT32, Type.FLOAT32, Type.FLOAT64, Type.STRING, Type.BOOL)
)
INTEGERS, TEXTS = [Type.ARRAY, Type.INT32], [Type.ARRAY, Type.STRING]


@pytest.fixture(scope="module")
def talker(pair: Pair) -> Half:
    return test_model_files.read(pair().talker)


@pytest.fixture(scope="module")
def mmproj(pair: Pair) -> Half:
    return test_model_files.read(pair().mmproj)


def refusal(open_file: Callable[[Path], object], path: Path, keys: Any, tensors: Any) -> str:
    message = test_model_files.refusal(open_file, test_model_files.write(path, keys, tensors))
    assert "\n" not in message
    return message


# -- what llama.cpp would abort on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "types"),
    [
        ("qwen3tts.expert_count", 4096, U32),
        ("qwen3tts.expert_used_count", 2, U32),
        ("qwen3tts.nextn_predict_layers", 99, U32),
        ("qwen3tts.rope.scaling.type", "spiral", TEXT),
        ("qwen3tts.rope.dimension_count", 2, U32),
        ("qwen3tts.attention.sliding_window", 1, U32),
        ("split.count", 9, [Type.UINT16]),
        ("tokenizer.ggml.precompiled_charsmap", [1, 2], INTEGERS),
    ],
)
def test_a_key_of_another_architecture_is_refused(
    talker: Half, tmp_path: Path, name: str, value: Any, types: list[Type]
) -> None:
    keys, tensors = talker
    message = refusal(TalkerFile, tmp_path / "t.gguf", {**keys, name: (value, types)}, tensors)
    assert message.endswith(f"the key {name} does not belong in a talker file")


def test_a_key_that_llama_cpp_does_not_read_is_nobodys_harm(talker: Half, tmp_path: Path) -> None:
    keys, tensors = talker
    extra = {"general.url": ("x", TEXT), "quantize.imatrix.file": ("x", TEXT), "mine": (3, U32)}
    TalkerFile(test_model_files.write(tmp_path / "t.gguf", {**keys, **extra}, tensors))


@pytest.mark.parametrize(
    ("name", "value", "types", "message"),
    [
        ("qwen3tts.attention.value_length", 32, U32, "keys of 64 and values of 32"),
        ("qwen3tts.rope.dimension_sections", [0, 0, 0, 0], INTEGERS, "rope sections"),
        ("qwen3tts.rope.dimension_sections", [-12, 34, 10, 0], INTEGERS, "rope sections"),
        ("qwen3tts.rope.dimension_sections", [32], INTEGERS, "rope sections"),
        ("tokenizer.ggml.model", "t5", TEXT, "not Qwen2's"),
        ("tokenizer.ggml.pre", "jina-v2-de", TEXT, "not Qwen2's"),
        ("tokenizer.ggml.token_type", [1, 1], INTEGERS, "incomplete"),
        ("qwen3tts.rope.freq_base", float("nan"), F32, "impossible value"),
        ("qwen3tts.attention.layer_norm_rms_epsilon", -1.0, F32, "impossible value"),
    ],
)
def test_a_value_that_llama_cpp_would_abort_on_is_refused(
    talker: Half, tmp_path: Path, name: str, value: Any, types: list[Type], message: str
) -> None:
    keys, tensors = talker
    assert message in refusal(TalkerFile, tmp_path / "t.gguf", {**keys, name: (value, types)}, tensors)


@pytest.mark.parametrize("double", ["", "<|codec_7|>", "a"])
def test_a_token_that_is_there_twice_or_empty_is_refused(talker: Half, tmp_path: Path, double: str) -> None:
    keys, tensors = talker
    tokens, types = keys["tokenizer.ggml.tokens"]
    changed = {**keys, "tokenizer.ggml.tokens": ([*tokens[:900], double, *tokens[901:]], types)}
    assert "an empty token, or one that occurs twice" in refusal(TalkerFile, tmp_path / "t.gguf", changed, tensors)


def test_a_tensor_too_many_is_refused(talker: Half, tmp_path: Path) -> None:
    keys, tensors = talker
    extra = {**tensors, "rope_freqs.weight": (np.ones(32, np.float32), gguf.GGMLQuantizationType.F32)}
    assert "the tensor rope_freqs.weight does not belong" in refusal(TalkerFile, tmp_path / "t.gguf", keys, extra)


def test_a_talker_off_ggmls_alignment_is_refused(talker: Half, tmp_path: Path) -> None:
    keys, tensors = talker
    changed = {**keys, "general.alignment": (8, U32)}
    path = test_model_files.write(tmp_path / "t.gguf", changed, tensors, alignment=8)
    assert "is below 32" in test_model_files.refusal(TalkerFile, path)


def test_a_weight_of_whole_numbers_is_refused(talker: Half, mmproj: Half, tmp_path: Path) -> None:
    for (keys, tensors), name, open_file in (
        (talker, "blk.0.ffn_up.weight", TalkerFile),
        (mmproj, "a.gen.code.head.weight", MmprojFile),
    ):
        whole = (tensors[name][0].astype(np.int32), gguf.GGMLQuantizationType.I32)
        message = refusal(open_file, tmp_path / "mmproj-t.gguf", keys, {**tensors, name: whole})
        assert message.endswith(f"{name} is stored as I32, which is not a type for weights")


# -- sizes that would outgrow a graph ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "types", "message"),
    [
        ("clip.gen.audio.block_count", geometry.MAX_NET_LAYERS + 1, U32, "impossible attention: 13 layers"),
        ("clip.gen.audio.attention.head_count", 1 << 20, U32, "impossible attention"),
        ("clip.gen.audio.attention.head_count_kv", 3, U32, "impossible attention"),
        (Key.DECODER_EPS, -1.0, F32, "impossible value of rms_eps: -1.0"),
        (Key.DECODER_ROPE_THETA, float("nan"), F32, "impossible value of rope_theta: nan"),
        (Key.ENCODER_EPS, float("inf"), F32, "impossible value of norm_eps: inf"),
        (Key.PREDICTOR_ROPE_THETA, 0.0, F32, "impossible value of rope_theta"),
        (Key.DECODER_WINDOW, 60_000, U32, "window of 60000"),
        (Key.SPEAKER_DILATIONS, [1, 2, 3, -4, 1], INTEGERS, "layers contradict each other"),
        (Key.SPEAKER_DILATIONS, [0] * 5, INTEGERS, "layers contradict each other"),
    ],
)
def test_sizes_past_the_budgets_are_refused(
    mmproj: Half, tmp_path: Path, name: str, value: Any, types: list[Type], message: str
) -> None:
    keys, tensors = mmproj
    assert message in refusal(MmprojFile, tmp_path / "mmproj-t.gguf", {**keys, name: (value, types)}, tensors)


def test_layers_by_the_thousand_are_refused_though_their_tensors_are_there(mmproj: Half, tmp_path: Path) -> None:
    keys, tensors = mmproj
    template = {name: tensor for name, tensor in tensors.items() if ".tfm.blk.0." in name}
    many = {name.replace(".0.", f".{i}."): tensor for i in range(40) for name, tensor in template.items()}
    message = refusal(MmprojFile, tmp_path / "mmproj-t.gguf", keys, {**tensors, **many})
    assert "the codec decoder cannot have 40 layers" in message


def test_the_most_layers_allowed_fit_the_graphs(mmproj: Half, tmp_path: Path) -> None:
    """Budgets of nodes, inputs and weights are asserted nowhere else: ggml would abort."""
    keys, tensors = mmproj
    n = geometry.MAX_NET_LAYERS
    deep = dict(tensors)
    for at in ("a.gen.code.blk", "a.gen.wav.tfm.blk", "a.codec_enc.tfm.blk"):
        for name, tensor in tensors.items():
            if name.startswith(f"{at}.0."):
                deep |= {name.replace(f"{at}.0.", f"{at}.{i}."): tensor for i in range(n)}
    keys = {**keys, "clip.gen.audio.block_count": (n, U32)}
    model, backend = MmprojFile(test_model_files.write(tmp_path / "mmproj-t.gguf", keys, deep)), Backend(1)
    predictor = CodePredictor(model, backend)
    hidden, rng = np.ones(model.predictor.talker_hidden, np.float32), np.random.default_rng(0)
    for sampling in (Sampling(), Sampling(top_p=0.9, top_k=0, repetition_penalty=1.1)):
        codes = predictor.predict(hidden[None], [1], [(sampling, rng)])[0].codes
        assert codes.shape == (16,) and codes.min() >= 0 and codes.max() < 2048
    decoder = CodecDecoder(model, backend)
    assert decoder.decode([(decoder.prime(np.tile(codes, (3, 1))), codes[None])])[0].shape == (1920,)
    assert CodecEncoder(model, backend).encode(np.ones(4_000, np.float32)).shape == (3, 16)


def test_a_predictor_without_its_projection_is_refused(mmproj: Half, tmp_path: Path) -> None:
    keys, tensors = mmproj
    without = {name: tensor for name, tensor in tensors.items() if ".proj_in." not in name}
    assert "there is no projection between them" in refusal(MmprojFile, tmp_path / "mmproj-t.gguf", keys, without)


# -- sampling defaults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "types"),
    [
        ("temperature", 0.0, F64),
        ("temperature", float("nan"), F64),
        ("temperature", float("inf"), F64),
        ("subtalker_temperature", -1.0, F64),
        ("repetition_penalty", 0.0, F64),
        ("top_p", 0.0, F64),
        ("subtalker_top_p", 1.5, F64),
        ("top_k", -5, I32),
        ("max_new_tokens", 0, U32),
        ("do_sample", "yes", TEXT),
        ("top_k", 2.5, F64),
        ("temperature", True, FLAG),
    ],
)
def test_sampling_defaults_that_cannot_be_followed_are_refused(
    talker: Half, tmp_path: Path, field: str, value: Any, types: list[Type]
) -> None:
    keys, tensors = talker
    message = refusal(TalkerFile, tmp_path / "t.gguf", {**keys, Key.GENERATION + field: (value, types)}, tensors)
    assert f"its generation defaults cannot be used: {field}" in message


def test_llama_cpps_own_sampling_keys_have_the_same_limits(talker: Half, tmp_path: Path) -> None:
    keys, tensors = test_model_files.upstream(talker)
    changed = {**keys, "general.sampling.temp": (0.0, F32)}
    assert "temperature must be above 0" in refusal(TalkerFile, tmp_path / "t.gguf", changed, tensors)


def test_the_official_defaults_are_sound() -> None:
    assert GenerationDefaults.from_mapping({"temperature": 1, "top_k": 0}).temperature == 1.0


# -- weights that are no numbers ---------------------------------------------------------------------------------------

CLIP = (0.3 * np.sin(np.arange(24_000) ** 1.3 / 400)).astype(np.float32)
OPTIONS = SpeechOptions(max_frames=3, seed=1, sub_top_p=0.9, sub_top_k=0)


def with_value(made: ConvertedPair, folder: Path, tensor: str, value: float) -> ConvertedPair:
    """The pair with the first float of a tensor overwritten: a value, or the scale of a block."""
    copy = test_model_files.copied(made, folder)
    for path in (copy.talker, copy.mmproj):
        if (info := GgufFile(path).tensors.get(tensor)) is not None:
            with path.open("r+b") as file:
                file.seek(info.offset)
                file.write(np.array(value, np.float32 if info.type.name == "F32" else np.float16).tobytes())
    return copy


def say(tts: TTS, voice: Voice | None = None) -> None:
    """A few frames, whether or not they come to an end."""
    with tts.utter("Hello.", voice, OPTIONS) as utterance:
        assert all(np.isfinite(samples).all() for samples in utterance)


def clone(model: Path) -> None:
    """Every net runs."""
    tts = TTS(model, n_threads=1)
    say(tts, Voice.from_audio(CLIP, tts, transcript="Hello there.", rate_hz=24_000))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(
    "tensor",
    [
        "blk.1.attn_norm.weight",
        "blk.0.ffn_down.weight",
        "output.weight",
        "a.gen.code.blk.1.ffn_up.weight",
        "a.gen.code.embd.weight",
        "a.gen.wav.quant.rest.codebook.weight",
        "a.gen.wav.dac.blk.0.conv.weight",
        "a.codec_enc.tfm.blk.1.attn_q.weight",
        "a.blk.2.res2.3.weight",
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_weight_that_is_no_number_is_named_when_its_net_is_loaded(
    pair: Pair, tmp_path: Path, tensor: str, value: float
) -> None:
    copy = with_value(pair(type="q8_0"), tmp_path, tensor, value)
    with pytest.raises(ModelFileError, match=f"the file is damaged: {tensor} contains NaN or infinity"):
        clone(copy.talker)


def test_a_row_of_the_token_table_is_looked_at_when_it_is_used(pair: Pair, tmp_path: Path) -> None:
    made = pair(type="q8_0")
    tts = TTS(made.talker, n_threads=1)
    file = GgufFile(made.talker)
    row_bytes = file.info("token_embd.weight").type.row_bytes(tts.engine.talker.config.hidden)
    token = tts._prompts.text_ids("Hello.")[3]
    copy = test_model_files.copied(made, tmp_path)
    with copy.talker.open("r+b") as broken:
        broken.seek(file.info("token_embd.weight").offset + token * row_bytes)
        broken.write(np.float16(np.nan).tobytes())
    with pytest.raises(ModelFileError, match=r"token_embd\.weight contains NaN"):
        say(TTS(copy.talker, n_threads=1))


@pytest.mark.parametrize(
    ("tensor", "net"),
    [
        ("output_norm.weight", "talker"),
        ("a.gen.code.output_norm.weight", "code predictor"),
        ("a.gen.wav.tfm.output_norm.weight", "codec decoder"),
        ("a.codec_enc.tfm.blk.1.ls2.weight", "codec encoder"),
        ("mm.a.fc.weight", "speaker encoder"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_net_that_overflows_says_so_and_makes_no_noise(pair: Pair, tmp_path: Path, tensor: str, net: str) -> None:
    """Every weight a number, and those of one tensor far too large."""
    copy = test_model_files.copied(pair(), tmp_path)
    broken = GgufFile(copy.mmproj if tensor.startswith(("a.", "mm.")) else copy.talker)
    with copy.mmproj.open("r+b") if broken.path == copy.mmproj else copy.talker.open("r+b") as file:
        info = broken.info(tensor)
        file.seek(info.offset)
        file.write(np.full(info.shape, 3.4e38, np.float32).tobytes())
    with pytest.raises(ModelFileError, match=f"the {net} computes NaN or infinity"):
        clone(copy.talker)


def test_clamping_makes_a_number_of_nan(backend: Backend) -> None:
    """ggml sorts with std::sort, to which a NaN is undefined behaviour: the predictor clamps before it sorts."""
    g = Graph(backend)
    x = g.input(1, 64)
    y = g.output(g.clamp(g.scale(x, 1.0), -1e30, 1e30))
    g.allocate()
    g.host_array(x)[0] = np.where(np.arange(64) % 3, np.nan, np.inf)
    g.compute()
    assert np.isfinite(g.host_array(y)).all()


# -- files that are no files -------------------------------------------------------------------------------------------


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ModelFileError, match="not a file"):
        GgufFile(tmp_path / "model.gguf")


@pytest.mark.parametrize("command", [["inspect"], ["convert"], ["codec", "decode"], ["codec", "encode"]])
def test_a_path_too_long_for_the_system_is_one_line(run: test_cli.Run, command: list[str]) -> None:
    result = run(*command, "x" * 6_000)
    assert result.code == 1 and result.out == b""
    assert result.err.startswith("error: ") and result.err.count("\n") == 1


def test_another_architecture_is_named(talker: Half, tmp_path: Path) -> None:
    keys, tensors = talker
    renamed = {**keys, "general.architecture": ("llama", TEXT)}
    assert "the architecture is 'llama', not 'qwen3tts'" in refusal(TalkerFile, tmp_path / "t.gguf", renamed, tensors)


def test_what_a_file_says_to_the_terminal_is_not_passed_on(talker: Half, tmp_path: Path) -> None:
    keys, tensors = talker
    named = {**keys, "general.architecture": ("\x1b[2Jllama\n", TEXT)}
    assert "\x1b" not in refusal(TalkerFile, tmp_path / "t.gguf", named, tensors)
    path = test_model_files.write(tmp_path / "t.gguf", {**keys, "tts.\x1b[2J": (1, U32)}, tensors)
    assert "has the name" in test_model_files.refusal(GgufFile, path)


def test_schema_sizes_are_the_released_ones() -> None:
    assert (schema.SAMPLES_PER_FRAME, schema.CODEBOOK_SIZE) == (1920, 2048)
