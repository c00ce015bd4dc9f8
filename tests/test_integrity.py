"""The sha256 of every group of tensors: recorded at conversion, found again, and changed by any change."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import test_architecture
import test_model_files
from typer.testing import CliRunner

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.cli import app
from qwen3tts_gguf.errors import ModelFileError
from qwen3tts_gguf.measure.inspection import verify_model
from qwen3tts_gguf.model.gguf_file import GgufFile
from qwen3tts_gguf.model.integrity import SOUND, verify_tensors
from qwen3tts_gguf.model.schema import Key
from qwen3tts_gguf.model.tensor_groups import group_of

Pair = Callable[..., ConvertedPair]

TALKER_GROUPS = {"token table", "talker head", "talker blocks"}
MMPROJ_GROUPS = {"speaker encoder", "code predictor", "codec codebooks", "codec decoder", "codec encoder"}


def changed(path: Path, folder: Path, tensor: str, offset: int, new: bytes) -> Path:
    """A copy with bytes of a tensor overwritten."""
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek(GgufFile(path).info(tensor).offset + offset)
        file.write(new)
    return copy


def verdicts(path: Path) -> dict[str, str]:
    return {group.name: group.verdict for group in verify_tensors(GgufFile(path))}


@pytest.mark.parametrize("type", ["f32", "q8_0", "q4_k_m"])
def test_every_group_of_a_converted_pair_is_sound(pair: Pair, type: str) -> None:
    made = pair(type=type)
    for path, groups in ((made.talker, TALKER_GROUPS), (made.mmproj, MMPROJ_GROUPS)):
        file = GgufFile(path)
        assert verdicts(path) == dict.fromkeys(groups, SOUND)
        assert {*file.strings(Key.GROUP_NAMES)} == groups
        assert {group_of(name) for name in file.tensors} == groups


def test_a_digest_is_of_names_types_shapes_and_bytes_in_file_order(pair: Pair) -> None:
    file = GgufFile(pair().talker)
    digest = hashlib.sha256()
    for name in ("output_norm.weight", "output.weight"):
        info = file.info(name)
        digest.update(f"{name} {info.type.name} {list(info.shape)}\n".encode() + file.blocks(name).tobytes())
    recorded = dict(zip(file.strings(Key.GROUP_NAMES), file.strings(Key.GROUP_SHA256), strict=True))
    assert recorded["talker head"] == digest.hexdigest()


@pytest.mark.parametrize(
    ("tensor", "group"), [("blk.2.ffn_down.weight", "talker blocks"), ("token_embd.weight", "token table")]
)
def test_one_changed_bit_is_found_in_its_group(pair: Pair, tmp_path: Path, tensor: str, group: str) -> None:
    path = pair(type="q8_0").talker
    byte = GgufFile(path).blocks(tensor)[-1]
    copy = changed(path, tmp_path, tensor, GgufFile(path).info(tensor).n_bytes - 1, bytes([byte ^ 1]))
    assert verdicts(copy) == dict.fromkeys(TALKER_GROUPS - {group}, SOUND) | {group: "changed since the conversion"}


def test_two_tensors_that_changed_places_are_found(pair: Pair, tmp_path: Path) -> None:
    keys, tensors = test_model_files.read(pair().talker)
    q, k = "blk.0.attn_k.weight", "blk.0.attn_v.weight"
    swapped = {{q: k, k: q}.get(name, name): tensor for name, tensor in tensors.items()}
    path = test_model_files.write(tmp_path / "t.gguf", keys, swapped)
    assert verdicts(path)["talker blocks"] == "changed since the conversion"


@pytest.mark.parametrize("type", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q6_k"])
def test_a_value_that_is_no_number_is_found_in_every_type(pair: Pair, tmp_path: Path, type: str) -> None:
    path, tensor = pair(type=type).talker, "blk.1.ffn_up.weight"
    n_bytes = GgufFile(path).info(tensor).n_bytes
    copy = changed(path, tmp_path, tensor, n_bytes // 2 // 1_000 * 1_000, b"\xff" * 600)
    assert verdicts(copy)["talker blocks"] == f"contains NaN or infinity in {tensor}"


def test_a_file_of_another_converter_has_nothing_to_verify(pair: Pair, tmp_path: Path) -> None:
    upstream = test_model_files.upstream(test_model_files.read(pair().talker))
    path = test_model_files.write(tmp_path / "t.gguf", *upstream)
    (problem,) = verify_model(path)["problems"]
    assert problem.startswith(f"{path}: all its values are finite, but it records no sha256")


def test_digests_that_do_not_fit_are_refused(pair: Pair, tmp_path: Path) -> None:
    keys, tensors = test_model_files.read(pair().talker)
    for changes, message in (
        ({Key.GROUP_NAMES: (["one"], keys[Key.GROUP_NAMES][1])}, "contradict each other"),
        (
            {name: ([*keys[name][0], "others"], keys[name][1]) for name in (Key.GROUP_NAMES, Key.GROUP_SHA256)},
            "the tensors of others are missing",
        ),
    ):
        path = test_model_files.write(tmp_path / "t.gguf", keys | changes, tensors)
        with pytest.raises(ModelFileError, match=message):
            verify_tensors(GgufFile(path))


def test_inspect_verify_says_so_by_table_json_and_exit_code(pair: Pair, tmp_path: Path) -> None:
    runner, made = CliRunner(), pair(type="q8_0")
    sound = runner.invoke(app, ["inspect", str(made.talker.parent), "--verify", "--json"], standalone_mode=False)
    report = json.loads(sound.stdout)
    assert sound.exception is None and report["problems"] == []
    assert {group["name"] for file in report["files"] for group in file["groups"]} == TALKER_GROUPS | MMPROJ_GROUPS
    copy = changed(made.mmproj, tmp_path, "a.gen.code.head.weight", 2, b"\x55")
    broken = runner.invoke(app, ["inspect", str(copy), "--verify"], standalone_mode=False)
    assert isinstance(broken.exception, ModelFileError)
    assert str(broken.exception) == f"{copy}: code predictor: changed since the conversion"
    assert broken.stdout.count(SOUND) == len(MMPROJ_GROUPS) - 1


def test_llama_cpps_own_reader_sees_the_same_tensors(pair: Pair) -> None:
    """The digests were filled in afterwards: nothing else moved."""
    for path in (pair().talker, pair().mmproj):
        reader, file = gguf.GGUFReader(path), GgufFile(path)
        assert {tensor.name for tensor in reader.tensors} == {*file.tensors}
        for tensor in reader.tensors:
            assert np.array_equal(tensor.data.reshape(-1).view(np.uint8), file.blocks(tensor.name))


# -- no code from anywhere ---------------------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "torch", "yaml", "runpy"}


@pytest.mark.parametrize("module", test_architecture.MODULES)
def test_nothing_is_unpickled_or_executed(module: str) -> None:
    assert not UNPICKLERS & {name.split(".")[0] for name in test_architecture.imports(module)}
    for node in ast.walk(ast.parse(test_architecture.MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = test_architecture.spoken(node.func)
            assert name not in {"eval", "exec", "compile", "__import__"}, f"{module}:{node.lineno}"
            assert name not in {"np.load", "numpy.load", "np.fromregex"}, f"{module}:{node.lineno}: reads pickles"
            assert "trust_remote_code" not in {keyword.arg for keyword in node.keywords}
