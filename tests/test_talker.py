"""The talker: what llama.cpp is given of its file. What it computes is held against the truth in test_parity."""

from __future__ import annotations

import llama_cpp

from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.model.schema import CODEC_VOCABULARY
from qwen3tts_gguf.nets.talker import Talker


def test_llama_cpp_knows_of_tokens_only_how_many_there_are(files: ModelFiles) -> None:
    talker = Talker(files.talker, 1)
    vocabulary = llama_cpp.llama_model_get_vocab(talker.wait_until_loaded())
    assert llama_cpp.llama_vocab_type(vocabulary) == llama_cpp.LLAMA_VOCAB_TYPE_NONE
    assert llama_cpp.llama_vocab_n_tokens(vocabulary) == talker.config.text_vocabulary + CODEC_VOCABULARY
