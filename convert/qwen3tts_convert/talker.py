"""The talker: `talker.model.*` of the checkpoint to `blk.*`, `token_embd` and `output` (transformers' Qwen3 decoder).

The token table is made of three parts of the checkpoint, as llama.cpp has it: the text embeddings, each sent through
the two-layer MLP `text_projection`, and below them the codec's embeddings. Row `text_vocabulary + c` is codec token c.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qwen3tts_gguf.model.schema import CODEC_VOCABULARY, N_CODEBOOKS, Shape, TalkerConfig, talker_tensors

from .section import Section
from .sources import Source, copied, row_blocks
from .weights import FloatArray, Weights

__all__ = ["config", "sources"]

TENSORS = {
    "output_norm.weight": "talker.model.norm.weight",
    "output.weight": "talker.codec_head.weight",
}
LAYER_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
TEXT_EMBEDDING = "talker.model.text_embedding.weight"
TEXT_PROJECTION = "talker.text_projection.linear_fc"
CODEC_EMBEDDING = "talker.model.codec_embedding.weight"


def config(talker: Section) -> TalkerConfig:
    """`talker_config` of config.json. Raises CheckpointError on anything the runtime or llama.cpp cannot do."""
    talker.expect("hidden_act", "silu")
    talker.expect("attention_bias", False)
    talker.expect("use_sliding_window", False)
    talker.expect("num_code_groups", N_CODEBOOKS)
    talker.expect("vocab_size", CODEC_VOCABULARY, why="llama.cpp has this width built in")
    rope = talker.rope()
    rope.expect("rope_type", "default")
    rope.expect("type", "default")
    head_dim = talker.integer("head_dim")
    if sum(rope.integers("mrope_section")) != head_dim // 2 or len(rope.integers("mrope_section")) != 3:
        raise rope.error("mrope_section", f"does not cover the {head_dim // 2} rotations of a head")
    return TalkerConfig(
        n_layers=talker.integer("num_hidden_layers"),
        hidden=talker.integer("hidden_size"),
        ffn=talker.integer("intermediate_size"),
        n_heads=talker.integer("num_attention_heads"),
        n_kv_heads=talker.integer("num_key_value_heads"),
        head_dim=head_dim,
        rope_theta=rope.number("rope_theta"),
        rms_eps=talker.number("rms_norm_eps"),
        context_length=talker.integer("max_position_embeddings"),
        vocabulary=talker.integer("text_vocab_size") + CODEC_VOCABULARY,
    )


def sources(weights: Weights, c: TalkerConfig, text_hidden: int) -> dict[str, Source]:
    """GGUF name -> source, for the whole talker file. `text_hidden` is the width of the text embeddings."""
    table = dict(TENSORS)
    for i in range(c.n_layers):
        table |= {f"blk.{i}.{ours}": f"talker.model.layers.{i}.{theirs}" for ours, theirs in LAYER_TENSORS.items()}
    shapes = talker_tensors(c)
    found = {ours: copied(weights, theirs, shapes[ours]) for ours, theirs in table.items()}
    found["token_embd.weight"] = _token_table(weights, c, text_hidden)
    assert found.keys() == shapes.keys()
    return {name: found[name] for name in shapes}


def _token_table(weights: Weights, c: TalkerConfig, text_hidden: int) -> Source:
    """[vocabulary, hidden]: fc2(silu(fc1(text embedding))), then the codec's embeddings."""
    shapes: dict[str, Shape] = {
        TEXT_EMBEDDING: (c.text_vocabulary, text_hidden),
        f"{TEXT_PROJECTION}1.weight": (text_hidden, text_hidden),
        f"{TEXT_PROJECTION}1.bias": (text_hidden,),
        f"{TEXT_PROJECTION}2.weight": (c.hidden, text_hidden),
        f"{TEXT_PROJECTION}2.bias": (c.hidden,),
        CODEC_EMBEDDING: (CODEC_VOCABULARY, c.hidden),
    }
    for name, shape in shapes.items():
        weights.require(name, shape)

    def blocks() -> Iterator[FloatArray]:
        w1, b1 = weights[f"{TEXT_PROJECTION}1.weight"], weights[f"{TEXT_PROJECTION}1.bias"]
        w2, b2 = weights[f"{TEXT_PROJECTION}2.weight"], weights[f"{TEXT_PROJECTION}2.bias"]
        for embedding in row_blocks(weights, TEXT_EMBEDDING, text_hidden):
            yield _silu(embedding @ w1.T + b1) @ w2.T + b2
        yield from row_blocks(weights, CODEC_EMBEDDING, c.hidden)

    return Source((c.vocabulary, c.hidden), tuple(shapes), blocks)


def _silu(x: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):  # exp(-x) = inf for a very negative x gives the right limit, -0
        y: FloatArray = x / (1 + np.exp(-x))
    return y
