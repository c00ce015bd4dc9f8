"""The code predictor: `talker.code_predictor.*` of the checkpoint to `a.gen.code.*`.

Its fifteen embeddings and fifteen heads, one per step, become one tensor each. The talker's codec embedding is here
once more (`out_embd`), for llama.cpp's pipeline.
"""

from __future__ import annotations

from qwen3tts_gguf.model.schema import N_CODEBOOKS, CodePredictorConfig, code_predictor_tensors

from .section import Section
from .sources import Source, copied, stacked
from .talker import CODEC_EMBEDDING
from .weights import Weights

__all__ = ["config", "sources"]

TENSORS = {
    "a.gen.code.out_embd.weight": CODEC_EMBEDDING,
    "a.gen.code.output_norm.weight": "talker.code_predictor.model.norm.weight",
}
PROJECTION_TENSORS = {
    "a.gen.code.proj_in.weight": "talker.code_predictor.small_to_mtp_projection.weight",
    "a.gen.code.proj_in.bias": "talker.code_predictor.small_to_mtp_projection.bias",
}
STEP_TENSORS = {
    "a.gen.code.embd.weight": "talker.code_predictor.model.codec_embedding.{step}.weight",
    "a.gen.code.head.weight": "talker.code_predictor.lm_head.{step}.weight",
}
LAYER_TENSORS = {
    "ln1.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_out.weight": "self_attn.o_proj.weight",
    "ln2.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}


def config(predictor: Section, talker_hidden: int) -> CodePredictorConfig:
    """`talker_config.code_predictor_config` of config.json. Raises CheckpointError on what cannot be run."""
    predictor.expect("hidden_act", "silu")
    predictor.expect("attention_bias", False)
    predictor.expect("use_sliding_window", False)
    predictor.expect("num_code_groups", N_CODEBOOKS)
    rope = predictor.rope()
    rope.expect("rope_type", "default")
    rope.expect("type", "default")
    hidden = predictor.integer("hidden_size")
    return CodePredictorConfig(
        n_layers=predictor.integer("num_hidden_layers"),
        hidden=hidden,
        ffn=predictor.integer("intermediate_size"),
        n_heads=predictor.integer("num_attention_heads"),
        n_kv_heads=predictor.integer("num_key_value_heads"),
        head_dim=predictor.integer("head_dim"),
        rms_eps=predictor.number("rms_norm_eps"),
        talker_hidden=talker_hidden,
        codebook_size=predictor.integer("vocab_size"),
        projected=hidden != talker_hidden,
        rope_theta=rope.number("rope_theta"),
    )


def sources(weights: Weights, c: CodePredictorConfig) -> dict[str, Source]:
    """GGUF name -> source, for the predictor's part of the mmproj file."""
    table = TENSORS | (PROJECTION_TENSORS if c.projected else {})
    for i in range(c.n_layers):
        layer = f"talker.code_predictor.model.layers.{i}"
        table |= {f"a.gen.code.blk.{i}.{ours}": f"{layer}.{theirs}" for ours, theirs in LAYER_TENSORS.items()}
    shapes = code_predictor_tensors(c)
    found = {ours: copied(weights, theirs, shapes[ours]) for ours, theirs in table.items()}
    for ours, theirs in STEP_TENSORS.items():
        names = [theirs.format(step=step) for step in range(N_CODEBOOKS - 1)]
        found[ours] = stacked(weights, names, shapes[ours])
    assert found.keys() == shapes.keys()
    return {name: found[name] for name in shapes}
