"""The talker: what llama.cpp is given of its file. test_parity compares what it computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model.files import ModelFiles, TalkerFile
from qwen3tts_gguf.model.schema import CODEC_VOCABULARY
from qwen3tts_gguf.nets.talker import Talker, TalkerBuffers, _slice_length
from qwen3tts_gguf.nets.talker_model import TOKEN_TABLE, _matching, placements

Pair = Callable[..., ConvertedPair]


@pytest.fixture(scope="module")
def talker(pair: Pair) -> Talker:
    return Talker(TalkerFile(pair("q4_0").talker), 1)


def test_llama_cpp_knows_of_tokens_only_how_many_there_are(files: ModelFiles) -> None:
    talker = Talker(files.talker, 1)
    vocabulary = llama_cpp.llama_model_get_vocab(talker.wait_until_loaded())
    assert llama_cpp.llama_vocab_type(vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_NONE
    assert llama_cpp.llama_vocab_n_tokens(vocabulary) == talker.config.text_vocabulary + CODEC_VOCABULARY


# -- where matrices lie ------------------------------------------------------------------------------------------------


def test_only_what_ggml_can_multiply_with_there_is_repacked(pair: Pair) -> None:
    file = TalkerFile(pair("q4_0").talker)
    placed = placements(file, TalkerBuffers.REPACK)
    types = {name: file.file.info(name).type for name in placed}
    assert {types[name] for name, placement in placed.items() if placement} == {GgmlType.Q4_0}
    assert set(placed.values()) == {"", "CPU_REPACK"}  # output.weight is Q8_0
    assert set(placements(file, TalkerBuffers.PLAIN).values()) == {""}


def test_an_expression_matches_its_tensors_and_no_other() -> None:
    names = [f"blk.{i}.{matrix}.weight" for i in range(28) for matrix in ("attn_q", "attn_v", "ffn_down")]
    names += ["output.weight", "output_norm.weight", TOKEN_TABLE]
    rng = np.random.default_rng(0)
    for _ in range(20):
        chosen = [name for name in names if rng.random() < 0.5]
        pattern = _matching(chosen)
        assert [name for name in names if re.search(pattern, name)] == chosen


def mapped_bytes(path: Path) -> int:
    """Of the file, what is in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="from /proc")
def test_pages_of_repacked_matrices_are_handed_back(pair: Pair) -> None:
    path = Path(pair("q4_0", size="tiny-1.7b").talker)
    sizes = {}
    for buffers in (TalkerBuffers.PLAIN, TalkerBuffers.REPACK):
        file = TalkerFile(path)
        talker = Talker(file, 1, buffers)
        talker.wait_until_loaded()
        sizes[buffers] = mapped_bytes(path)
        copied = [name for name, place in placements(file, buffers).items() if place]
        talker.close()
    pages = sum(end - start for start, end in (file.file._pages(name) for name in copied) if end > start)
    assert pages > 100_000
    assert sizes[TalkerBuffers.REPACK] <= sizes[TalkerBuffers.PLAIN] - pages


def test_rows_share_products_as_far_as_every_matrix_allows(pair: Pair) -> None:
    widths = {type: Talker(TalkerFile(pair(type).talker), 1).width for type in ("q8_0", "f16", "f32")}
    assert widths["q8_0"] > 256
    assert widths["f16"] == widths["f32"] == 1


# -- how a prompt is cut -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_positions", "n_shared"), [(1, 0), (2, 0), (65, 0), (200, 0), (200, 90), (200, 500), (9, 3)]
)
def test_slices_cover_all_of_a_prompt_but_its_last_position(talker: Talker, n_positions: int, n_shared: int) -> None:
    slices = talker.slices(n_positions, n_shared)
    covered = [i for part in slices for i in range(n_positions)[part]]
    assert covered == list(range(n_positions - 1))
    assert all(0 < part.stop - part.start <= talker.slice_length for part in slices)


def test_what_is_shared_is_cut_alike_in_all_prompts(talker: Talker) -> None:
    def shared(n_positions: int) -> list[slice]:
        return [part for part in talker.slices(n_positions, 90) if part.stop <= 88]

    assert shared(120) == shared(150) == shared(800)
    assert shared(120)[-1].stop == 88


def test_the_slices_of_a_large_model_are_short() -> None:
    assert [_slice_length(round(n * 1e6)) for n in (444, 1416, 20_000, 1)] == [24, 8, 4, 64]
