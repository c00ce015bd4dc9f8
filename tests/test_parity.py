"""Every stage against the official package, with F32 files and teacher-forced inputs (golden/make_golden.py)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import GOLDEN, relative_error

from qwen3tts_convert import ConvertedPair
from qwen3tts_gguf import TTS, SpeechOptions, Voice
from qwen3tts_gguf.ggml.device import Backend
from qwen3tts_gguf.model.files import ModelFiles
from qwen3tts_gguf.model.tokenizer import Tokenizer
from qwen3tts_gguf.model.vocabulary import Vocabulary
from qwen3tts_gguf.nets import codec_layout
from qwen3tts_gguf.nets.code_predictor import CodePredictor
from qwen3tts_gguf.nets.codec_decoder import CodecDecoder
from qwen3tts_gguf.nets.codec_layout import CodecLayout
from qwen3tts_gguf.nets.mel import log_mel
from qwen3tts_gguf.nets.speaker_encoder import SpeakerEncoder
from qwen3tts_gguf.nets.talker import Talker
from qwen3tts_gguf.speech.prompt import Layout, PromptBuilder

TOLERANCE = 1e-4
TEXTS: dict[str, str] = json.loads((GOLDEN / "versions.json").read_text())["texts"]
LAYOUTS: dict[str, Layout] = {"nonstreaming": "whole", "streaming": "stepwise"}

Golden = Callable[[str], dict[str, Any]]
Pair = Callable[..., ConvertedPair]


@pytest.fixture(scope="module")
def talker(files: ModelFiles) -> Talker:
    return Talker(files.talker, n_threads=2)


@pytest.fixture(scope="module")
def predictor(files: ModelFiles, backend: Backend) -> CodePredictor:
    return CodePredictor(files.mmproj, backend)


@pytest.fixture(scope="module")
def prompts(files: ModelFiles, talker: Talker) -> tuple[PromptBuilder, Vocabulary]:
    tokens = files.talker.file.strings("tokenizer.ggml.tokens")
    vocabulary = Vocabulary(files.talker.file, tokens)
    return PromptBuilder(talker, Tokenizer(files.talker.file, tokens), vocabulary), vocabulary


def test_mel_equals_the_official_one(golden: Golden) -> None:
    expected = golden("mel")
    assert relative_error(log_mel(tiny.reference_clip()), expected["mel"]) < TOLERANCE


def test_speaker_encoder_equals_the_official_one_at_every_stage(
    golden: Golden, files: ModelFiles, backend: Backend
) -> None:
    expected = golden("speaker")
    encoder = SpeakerEncoder(files.mmproj, backend)
    stages = encoder.stages(log_mel(tiny.reference_clip()))
    names = {"stem": "block0", "block1": "block1", "block2": "block2", "block3": "block3", "mfa": "mfa"}
    for ours, official in names.items():
        _, column_step = expected[f"{official}.steps"]
        assert relative_error(stages[ours][:, ::column_step], expected[official]) < TOLERANCE, ours
    assert relative_error(stages["asp"], expected["asp"]) < TOLERANCE
    assert relative_error(stages["fc"], expected["vector"]) < TOLERANCE
    short = encoder.encode(log_mel(tiny.reference_clip(7200)))
    assert relative_error(short, expected["vector_7200"]) < TOLERANCE


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("language", ["english", "chinese", "auto"])
@pytest.mark.parametrize("voice", ["xvector", "none"])
@pytest.mark.parametrize("text", ["english", "chinese", "mixed"])
def test_prompt_equals_the_official_one(
    golden: Golden, prompts: tuple[PromptBuilder, Vocabulary], text: str, voice: str, language: str, layout: str
) -> None:
    expected, (builder, vocabulary) = golden("prompt"), prompts
    column_step = expected["steps"][1]
    prompt = builder.build(
        TEXTS[text],
        language=vocabulary.language_id(language),
        speaker=expected["voice"] if voice == "xvector" else None,
        layout=LAYOUTS[layout],
    )
    assert builder.text_ids(TEXTS[text]) == expected[f"{text}.ids"].tolist()
    key = f"{text}.{voice}.{language}.{layout}"
    assert relative_error(prompt.embeddings[:, ::column_step], expected[f"{key}.prompt"]) < TOLERANCE
    assert relative_error(prompt.trailing[:, ::column_step], expected[f"{key}.trailing"]) < TOLERANCE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_talker_equals_the_official_one_over_forty_frames(golden: Golden, talker: Talker, layout: str) -> None:
    expected = golden("talker")
    logit_step = expected[f"{layout}.logits.steps"][1]
    sequence = talker.open()
    prompt = expected[f"{layout}.prompt"]
    for part in sequence.start(prompt):
        sequence.prefill(prompt[part])
    outputs = [talker.step([(sequence, row)])[0] for row in (prompt[-1], *expected[f"{layout}.inputs"])]
    sequence.close()
    assert relative_error(np.stack([out.hidden for out in outputs]), expected[f"{layout}.hidden"]) < TOLERANCE
    logits = np.stack([out.logits for out in outputs])
    assert relative_error(logits[:, ::logit_step], expected[f"{layout}.logits"]) < TOLERANCE
    assert np.argmax(logits, axis=1).tolist() == expected[f"{layout}.best"].tolist()


def test_predictor_logits_equal_the_official_ones(golden: Golden, predictor: CodePredictor) -> None:
    expected = golden("predictor")
    logits = np.stack(
        [
            predictor.logits(hidden, codes.astype(np.int32))
            for hidden, codes in zip(expected["hidden"], expected["codes"], strict=True)
        ]
    )
    assert relative_error(logits[expected["logits.frames"]], expected["logits"]) < TOLERANCE
    assert relative_error(logits[:, :, :16], expected["slice"]) < TOLERANCE
    assert np.array_equal(logits.argmax(axis=2), expected["best"])


def test_frame_embedding_is_the_sum_of_the_code_embeddings(golden: Golden, predictor: CodePredictor) -> None:
    from qwen3tts_gguf.nets.sampling import Sampling

    hidden = golden("predictor")["hidden"][0]
    frame = predictor.predict(hidden[None], [7], [(Sampling(draws=False), np.random.default_rng(0))])[0]
    assert relative_error(frame.embedding, predictor.embed(frame.codes[None])[0]) < 1e-6


@pytest.mark.parametrize("layout", [codec_layout.F16, codec_layout.F32], ids=["F16", "F32"])
def test_codec_decoder_equals_one_official_pass_over_100_frames(
    golden: Golden, files: ModelFiles, backend: Backend, layout: CodecLayout
) -> None:
    expected = golden("codec_decoder")
    decoder = CodecDecoder(files.mmproj, backend, layout)
    [samples] = decoder.decode([(decoder.new_state(), expected["codes"])])
    assert relative_error(samples, expected["waveform"]) < TOLERANCE


@pytest.mark.parametrize(
    ("case", "text", "size", "language"),
    [
        ("english", "english", "tiny", "english"),
        ("chinese", "chinese", "tiny", "chinese"),
        ("mixed", "mixed", "tiny", "auto"),
        ("0.6b.english", "english", "tiny-0.6b", "english"),
    ],
)
def test_forty_greedy_frames_equal_the_official_codes(
    golden: Golden, pair: Pair, case: str, text: str, size: str, language: str
) -> None:
    expected = golden("generate")[f"{case}.codes"]
    tts = TTS(pair(size=size).talker)
    voice = Voice.from_audio(tiny.reference_clip(), tts, rate_hz=24_000)
    options = SpeechOptions(language=language, greedy=True, max_frames=len(expected))
    with tts.utter(TEXTS[text], voice, options) as utterance:
        for _ in utterance:
            pass
    assert utterance.codes.tolist() == expected.tolist()
