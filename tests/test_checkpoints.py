"""Checkpoints as trainers, newer transformers and the hub's cache leave them: converted, or refused with a hint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_convert import edit_json, keys, tensors

from qwen3tts_convert import ConvertedPair, convert
from qwen3tts_convert.checkpoint import Checkpoint
from qwen3tts_gguf import TTS, CheckpointError, SpeechOptions
from qwen3tts_gguf.model.schema import Key

Json = dict[str, Any]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Base checkpoint. Not to be written to."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny-base")


@pytest.fixture(scope="session")
def expected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> ConvertedPair:
    return convert(base, tmp_path_factory.mktemp("expected"))


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """A copy of the Base checkpoint, to be changed."""
    return Path(shutil.copytree(base, tmp_path / "tiny-base"))


def edit(path: Path, change: Callable[[Json], object]) -> None:
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


SOURCES = {Key.SOURCE, Key.REVISION, Key.SOURCE_FILES, Key.SOURCE_SHA256, "GGUF.kv_count"}


def assert_equal(found: ConvertedPair, expected: ConvertedPair, *but: str) -> None:
    """Every tensor bit for bit, and every key except those about the source."""
    for half in ("talker", "mmproj"):
        ours, theirs = tensors(getattr(found, half)), tensors(getattr(expected, half))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name].data, theirs[name].data) for name in ours)
        some, others = keys(getattr(found, half)), keys(getattr(expected, half))
        left_out = SOURCES | {*but}
        assert {k: v for k, v in some.items() if k not in left_out} == {
            k: v for k, v in others.items() if k not in left_out
        }


# -- transformers 5 ----------------------------------------------------------------------------------------------------


def new_rope(section: Json, *, keeps_theta: bool = False) -> None:
    rope = section.pop("rope_scaling", None) or {"rope_type": "default"}
    section["rope_parameters"] = {**rope, "rope_theta": section["rope_theta"]}
    if not keeps_theta:
        del section["rope_theta"]


def by_layer_type(section: Json) -> None:
    new_rope(section)
    section["rope_parameters"] = dict.fromkeys(("full_attention", "sliding_attention"), section["rope_parameters"])


@pytest.mark.parametrize(
    "change",
    [new_rope, lambda section: new_rope(section, keeps_theta=True), by_layer_type],
    ids=["moved", "both", "types"],
)
def test_rope_parameters_are_read_wherever_they_are(
    copy: Path, expected: ConvertedPair, tmp_path: Path, change: Callable[[Json], None]
) -> None:
    talker = ["talker_config"]
    edit(copy / "config.json", lambda v: [change(v[talker[0]]), change(v[talker[0]]["code_predictor_config"])])
    edit(
        copy / "speech_tokenizer" / "config.json", lambda v: [change(v["decoder_config"]), change(v["encoder_config"])]
    )
    assert_equal(convert(copy, tmp_path / "out"), expected)


def test_the_theta_in_rope_parameters_counts(copy: Path, tmp_path: Path) -> None:
    edit(copy / "config.json", lambda v: new_rope(v["talker_config"], keeps_theta=True))
    edit(copy / "config.json", lambda v: v["talker_config"]["rope_parameters"].update(rope_theta=5000.0))
    assert Checkpoint.find(copy).config.talker.rope_theta == 5000.0


def test_layers_that_turn_differently_are_refused(copy: Path) -> None:
    edit(copy / "speech_tokenizer" / "config.json", lambda v: by_layer_type(v["decoder_config"]))
    where = ["decoder_config", "rope_parameters", "sliding_attention", "rope_theta"]
    edit_json(copy / "speech_tokenizer" / "config.json", *where[:-1], value={"rope_type": "default", "rope_theta": 7.0})
    with pytest.raises(CheckpointError, match="only layers that are all the same"):
        Checkpoint.find(copy)


def tokenizer_json(folder: Path) -> Json:
    """What transformers makes of the folder's vocab.json and merges.txt."""
    lines = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
    added = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["added_tokens_decoder"]
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    model = {"type": "BPE", "vocab": vocabulary, "merges": [line.split(" ") for line in lines]}
    return {"version": "1.0", "model": model, "added_tokens": [{"id": int(i), **token} for i, token in added.items()]}


@pytest.mark.parametrize("stale", [True, False], ids=["stale vocab.json", "alone"])
def test_a_tokenizer_of_transformers_5_converts_alike(
    copy: Path, expected: ConvertedPair, tmp_path: Path, stale: bool
) -> None:
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer_json(copy)), "utf-8")
    edit(
        copy / "tokenizer_config.json",
        lambda v: [v.pop("added_tokens_decoder"), v.update(tokenizer_class="TokenizersBackend", backend="tokenizers")],
    )
    if stale:
        edit(copy / "vocab.json", lambda v: v.update({token: i + 1 for token, i in [*v.items()][:9]}))
        (copy / "merges.txt").write_text("#version: 0.2\na b\n")
    else:
        (copy / "vocab.json").unlink()
        (copy / "merges.txt").unlink()
    assert_equal(convert(copy, tmp_path / "out"), expected)


def test_a_tokenizer_of_another_kind_is_refused(copy: Path) -> None:
    whole = tokenizer_json(copy)
    whole["model"]["type"] = "Unigram"
    (copy / "tokenizer.json").write_text(json.dumps(whole), "utf-8")
    with pytest.raises(CheckpointError, match="type is 'Unigram', only 'BPE'"):
        Checkpoint.find(copy)


# -- fine-tunes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 0, 17, 151643, None, 2148])
@pytest.mark.parametrize("name", ["pad", "bos", "eos", "decoder_start"])
def test_generic_ids_of_transformers_name_no_codec_token(copy: Path, name: str, value: int | None) -> None:
    names = Checkpoint.find(copy).codec_tokens
    edit_json(copy / "config.json", "talker_config", f"{name}_token_id", value=value)
    assert Checkpoint.find(copy).codec_tokens == names and "<|codec_pad|>" in names


def test_a_missing_size_follows_from_the_width(copy: Path) -> None:
    for width, size in ((1024, "0b6"), (2048, "1b7"), (128, "")):
        edit(copy / "config.json", lambda v: v.pop("tts_model_size", None))
        checkpoint = Checkpoint.find(copy)
        checkpoint.talker = type(checkpoint.talker)({"hidden_size": width}, "config.json")
        assert checkpoint._model_size() == size


@pytest.mark.parametrize(
    "file", ["config.json", "speech_tokenizer/config.json", "tokenizer_config.json", "vocab.json", "merges.txt"]
)
def test_a_byte_order_mark_costs_nothing(copy: Path, file: str) -> None:
    before = Checkpoint.find(copy)
    (copy / file).write_bytes(b"\xef\xbb\xbf" + (copy / file).read_bytes())
    after = Checkpoint.find(copy)
    assert (after.config, after.codec_tokens) == (before.config, before.codec_tokens)
    assert (after.tokenizer.tokens, after.tokenizer.merges) == (before.tokenizer.tokens, before.tokenizer.merges)


def tuned(copy: Path, **changes: Any) -> Path:
    """As the official fine-tuning script leaves it."""
    edit(
        copy / "config.json",
        lambda v: [
            v.update(tts_model_type="custom_voice"),
            v["talker_config"].update(
                {"spk_id": {"MySpeaker": 3000}, "spk_is_dialect": {"MySpeaker": False}, **changes}
            ),
        ],
    )
    return copy


@pytest.mark.parametrize("dialect", [True, {"MySpeaker": True}, {"MySpeaker": None}, {}, None], ids=str)
def test_a_dialect_that_names_no_language_is_none_and_a_lone_speaker_needs_no_name(
    copy: Path, tmp_path: Path, dialect: Any
) -> None:
    pair = convert(tuned(copy, spk_is_dialect=dialect), tmp_path / "out")
    assert Checkpoint.find(copy).dialect("MySpeaker") == ""
    tts = TTS(pair.talker, n_threads=1)
    with tts.utter("Hello.", options=SpeechOptions(seed=1, max_frames=1)) as utterance:
        assert len(list(utterance)) == 1
    assert tts._compatibility.resolve(None, "chinese").preset == 3000


def test_a_custom_voice_without_speakers_is_refused_at_conversion(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="spk_id names no speaker"):
        convert(tuned(copy, spk_id={}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "card",
    [
        b"---\nlicense: apache-2.0\ntitle: My voice: a fine-tune\n---\n# hi\n",
        b"---\nlicense: apache-2.0\nauthor: Ren\xe9\n---\n",
        b"---\n- a list\n---\n",
        b"---\nlicense: [\n---\n",
    ],
    ids=["not yaml", "not utf-8", "a list", "unfinished"],
)
def test_a_model_card_that_cannot_be_read_costs_its_licence_only(
    copy: Path, expected: ConvertedPair, tmp_path: Path, card: bytes
) -> None:
    (copy / "README.md").write_bytes(card)
    pair = convert(copy, tmp_path / "out")
    assert_equal(pair, expected)
    (note,) = pair.notes
    assert "README.md: the model card cannot be read" in note.message and "\n" not in str(note)


def test_a_model_card_gives_its_licence(copy: Path, tmp_path: Path) -> None:
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\n# hi\n")
    pair = convert(copy, tmp_path / "out")
    assert keys(pair.talker)["general.license"] == "apache-2.0" and pair.notes == ()


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_single_file_is_taken_before_shards_with_a_note(copy: Path, expected: ConvertedPair, tmp_path: Path) -> None:
    other = tiny.write_checkpoint(tmp_path / "other", seed=9, shards=2)
    for part in other.glob("model*"):
        shutil.copy(part, copy / part.name)
    pair = convert(copy, tmp_path / "out")
    assert_equal(pair, expected)
    (note,) = pair.notes
    assert note.message.startswith(f"{copy / 'model.safetensors'} is converted") and "index.json" in note.message
    assert "move model.safetensors away" in note.hint
    (copy / "model.safetensors").unlink()
    assert Checkpoint.find(copy).notes == ()


def without_codec(folder: Path) -> None:
    shutil.rmtree(folder / "speech_tokenizer")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def adapter(folder: Path) -> None:
    for path in folder.glob("*.json"):
        path.unlink()
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            without_codec,
            "the folder speech_tokenizer, which contains the codec, is missing",
            "copy it from the checkpoint",
        ),
        (pickled, "pytorch_model.bin is a pickle, only safetensors are converted", "save_pretrained"),
        (adapter, "this is a LoRA adapter, not a whole model", "merge it into the model"),
    ],
)
def test_what_is_not_whole_says_what_to_do(copy: Path, change: Callable[[Path], None], message: str, hint: str) -> None:
    change(copy)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.find(copy)
    assert caught.value.message == f"{copy}: {message}" and hint in caught.value.hint


def test_a_file_instead_of_a_folder_is_an_error(copy: Path) -> None:
    with pytest.raises(CheckpointError, match=f"give the folder, {copy}"):
        Checkpoint.find(copy / "model.safetensors")
    (copy / "x.gguf").touch()
    with pytest.raises(CheckpointError, match="already converted"):
        Checkpoint.find(copy / "x.gguf")


@pytest.mark.parametrize("whole", [True, False], ids=["folder", "files"])
def test_links_are_followed(base: Path, tmp_path: Path, whole: bool) -> None:
    folder = tmp_path / "linked"
    folder.mkdir()
    for path in base.iterdir():
        if path.is_file() or whole:
            os.symlink(path, folder / path.name)
    if not whole:
        (folder / "speech_tokenizer").mkdir()
        for path in (base / "speech_tokenizer").iterdir():
            os.symlink(path, folder / "speech_tokenizer" / path.name)
    (folder / "optimizer.pt").write_bytes(b"x")
    checkpoint = Checkpoint.find(folder)
    assert checkpoint.name == "linked" and checkpoint.config == Checkpoint.find(base).config


# -- the hub's cache ---------------------------------------------------------------------------------------------------

COMMIT, OLDER = "fd4b" + "0" * 36, "0123" + "0" * 36
NAME = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"


@pytest.fixture
def cached(base: Path, tmp_path: Path) -> Path:
    """models--Qwen--...: a repository in the hub's cache, of one snapshot."""
    repository = tmp_path / "hub" / "models--Qwen--Qwen3-TTS-12Hz-0.6B-Base"
    (repository / "snapshots").mkdir(parents=True)
    os.symlink(base, repository / "snapshots" / COMMIT)
    return repository


def test_a_snapshot_of_the_hubs_cache_has_the_models_name(base: Path, cached: Path) -> None:
    (cached / "snapshots" / COMMIT).unlink()
    shutil.copytree(base, cached / "snapshots" / COMMIT)
    for folder in (cached / "snapshots" / COMMIT, cached / "snapshots", cached):
        checkpoint = Checkpoint.find(folder)
        assert (checkpoint.source, checkpoint.revision, checkpoint.name) == (NAME, COMMIT, NAME.split("/")[1])
        assert checkpoint.folder == (cached / "snapshots" / COMMIT).resolve()


def test_of_several_snapshots_the_branch_decides(base: Path, cached: Path) -> None:
    os.symlink(base, cached / "snapshots" / OLDER)
    with pytest.raises(CheckpointError, match=f"there is no snapshot main: known snapshots: {OLDER}, {COMMIT}"):
        Checkpoint.find(cached)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(f"{COMMIT}\n")
    (cached / "refs" / "v1").write_text(OLDER)
    assert Checkpoint.find(cached).revision == COMMIT
    assert Checkpoint.find(cached, "v1").revision == Checkpoint.find(cached, OLDER).revision == OLDER
    with pytest.raises(CheckpointError, match="there is no snapshot v2"):
        Checkpoint.find(cached, "v2")


def test_a_folder_that_only_looks_like_the_cache_keeps_its_name(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "snapshots" / "mine"))
    assert Checkpoint.find(folder).source == "mine"
