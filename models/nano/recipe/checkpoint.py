"""The checkpoint in the released layout: configuration, tokenizer, weights."""

from __future__ import annotations

import json
from typing import Any

from codec import CONFIG as CODEC_CONFIG
from domain import NAMES, WORDS
from safetensors.torch import save_file
from settings import (
    CHECKPOINT,
    CODEBOOK_SIZE,
    CODEC_VOCABULARY,
    FEED_FORWARD,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    N_CODEBOOKS,
    PREDICTOR_FEED_FORWARD,
    PREDICTOR_HEAD_DIM,
    PREDICTOR_HIDDEN,
    PREDICTOR_LAYERS,
    RATE,
    SAMPLING,
    TEXT_HIDDEN,
    WORK,
)
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn

_SPLIT = (  # Qwen's own
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_pad|>",
)


def _forms(word: str) -> list[str]:
    """How a word of the domain is written: within a text, and at its beginning."""
    name = word.capitalize()
    return [f" {name}", name] if name in NAMES else [f" {word}", word, name]


def write_tokenizer() -> dict[str, int]:
    """Writes a BPE in which every word of the domain is one token; the ids config.json wants."""
    tokenizer = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    forms = [form for w in WORDS for form in _forms(w)]
    trainer = trainers.BpeTrainer(vocab_size=8000, min_frequency=1, initial_alphabet=sorted(alphabet))
    tokenizer.train_from_iterator(["assistant", *forms], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    ids, n = model["vocab"], len(model["vocab"])
    CHECKPOINT.mkdir(parents=True, exist_ok=True)
    (CHECKPOINT / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    (CHECKPOINT / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    special = {name: n + i for i, name in enumerate(_SPECIAL)}
    added = {
        str(i): dict(content=name, lstrip=False, rstrip=False, normalized=False, single_word=False, special=True)
        for name, i in special.items()
    }
    config = dict(
        tokenizer_class="Qwen2Tokenizer",
        added_tokens_decoder=added,
        add_bos_token=False,
        add_prefix_space=False,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token=None,
        clean_up_tokenization_spaces=False,
        split_special_tokens=False,
        errors="replace",
        model_max_length=131072,
    )
    (CHECKPOINT / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    processor = dict(
        processor_class="Qwen3TTSProcessor", padding_side="left", padding_value=0.0, return_attention_mask=True
    )
    (CHECKPOINT / "preprocessor_config.json").write_text(json.dumps(processor))
    return special | {"assistant": ids["assistant"], "size": n + len(special)}


def configuration(ids: dict[str, int]) -> dict[str, Any]:
    """config.json; control tokens of the codec stand where the released models have them."""
    predictor = dict(
        model_type="qwen3_tts_talker_code_predictor",
        hidden_size=PREDICTOR_HIDDEN,
        intermediate_size=PREDICTOR_FEED_FORWARD,
        head_dim=PREDICTOR_HEAD_DIM,
        num_hidden_layers=PREDICTOR_LAYERS,
        layer_types=["full_attention"] * PREDICTOR_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        num_code_groups=N_CODEBOOKS,
        vocab_size=CODEBOOK_SIZE,
        hidden_act="silu",
        attention_bias=False,
        initializer_range=0.05,
        max_position_embeddings=65536,
        rms_norm_eps=1e-6,
        rope_scaling=None,
        rope_theta=10000,
    )
    talker = dict(
        model_type="qwen3_tts_talker",
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        head_dim=HEAD_DIM,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        num_code_groups=N_CODEBOOKS,
        vocab_size=CODEC_VOCABULARY,
        text_hidden_size=TEXT_HIDDEN,
        text_vocab_size=-(-ids["size"] // 32) * 32,
        hidden_act="silu",
        attention_bias=False,
        attention_dropout=0,
        initializer_range=0.05,
        max_position_embeddings=32768,
        position_id_per_seconds=13,
        rms_norm_eps=1e-6,
        rope_theta=10000,
        rope_scaling=dict(interleaved=True, mrope_section=[12, 10, 10], rope_type="default", type="default"),
        sliding_window=None,
        use_sliding_window=False,
        use_cache=True,
        pad_token_id=2148,
        codec_pad_id=2148,
        codec_bos_id=2149,
        codec_eos_token_id=2150,
        codec_think_id=2154,
        codec_nothink_id=2155,
        codec_think_bos_id=2156,
        codec_think_eos_id=2157,
        codec_language_id=dict(english=2050),
        spk_id={},
        spk_is_dialect={},
        code_predictor_config=predictor,
    )
    return dict(
        architectures=["Qwen3TTSForConditionalGeneration"],
        model_type="qwen3_tts",
        tts_model_size="0b6",
        tts_model_type="base",
        tokenizer_type="qwen3_tts_tokenizer_12hz",
        assistant_token_id=ids["assistant"],
        im_start_token_id=ids["<|im_start|>"],
        im_end_token_id=ids["<|im_end|>"],
        tts_pad_token_id=ids["<tts_pad>"],
        tts_bos_token_id=ids["<tts_text_bos>"],
        tts_eos_token_id=ids["<tts_text_eod>"],
        talker_config=talker,
        speaker_encoder_config=dict(
            enc_dim=HIDDEN,
            sample_rate=RATE,
            enc_channels=[32, 32, 32, 32, 96],
            enc_attention_channels=16,
            enc_se_channels=16,
        ),
    )


def write_model(model: nn.Module, config: dict[str, Any]) -> None:
    """Writes talker, predictor and speaker encoder."""
    weights = {k: v.float().contiguous() for k, v in model.state_dict().items()}
    save_file(weights, CHECKPOINT / "model.safetensors", metadata={"format": "pt"})
    (CHECKPOINT / "config.json").write_text(json.dumps(config, indent=2))
    (CHECKPOINT / "generation_config.json").write_text(json.dumps(SAMPLING, indent=2))


def write_codec(codec: nn.Module) -> None:
    """Writes the codec beside it."""
    folder = CHECKPOINT / "speech_tokenizer"
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.float().contiguous() for k, v in codec.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CODEC_CONFIG, indent=2))
    (folder / "configuration.json").write_text("{}")
    extractor = dict(
        feature_extractor_type="EncodecFeatureExtractor",
        feature_size=1,
        sampling_rate=RATE,
        padding_side="right",
        padding_value=0.0,
        return_attention_mask=True,
        chunk_length_s=None,
        overlap=None,
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))


def main() -> None:
    (WORK / "config.json").write_text(json.dumps(configuration(write_tokenizer())))


if __name__ == "__main__":
    main()
