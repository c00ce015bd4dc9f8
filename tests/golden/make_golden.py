"""Write the golden files: what the official package computes, stage by stage, on tiny random checkpoints.

usage: PYTHON tests/golden/make_golden.py [--only STAGE ...]

PYTHON is the interpreter of the reference environment (torch, transformers and qwen-tts as versions.json names them).
The checkpoints are those of tests/tiny.py, the model runs in float32 on one thread, with eager attention (the package
does not hand that choice on to its codec, whose attention is SDPA). Each stage makes one <stage>.npz; a stage is fed
fixed inputs, never its own output of an earlier step, except where whole generations are compared (generate, modes).

Layout of the arrays:
  - time goes down the rows, channels across the columns, without a batch axis; codes are [frames, 16].
  - Of a large array every n-th row and m-th column is kept: "<name>" comes with "<name>.steps" = [n, m], and a test
    compares its own result after [::n, ::m]. The row steps are coprime to the upsampling rates, so that the rows kept
    fall on every phase of a transposed convolution.
  - "<name>.gap" is how far the chosen code was ahead of the second best, in the units of the choice (logit or
    distance): where it is near 0, rounding may choose the other.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import json
import platform
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import soundfile
import torch
import transformers
from torch import Tensor, nn
from transformers.models.mimi.modeling_mimi import MimiEuclideanCodebook

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import tiny

if TYPE_CHECKING:
    from qwen_tts import Qwen3TTSModel

HERE = Path(__file__).resolve().parent
Arrays = dict[str, np.ndarray]

SEED = 0
CHECKPOINTS = {
    "base": {"model_type": "base", "size": "tiny", "seed": SEED},
    "base-0.6b": {"model_type": "base", "size": "tiny-0.6b", "seed": SEED},
    "custom_voice": {"model_type": "custom_voice", "size": "tiny", "seed": SEED},
    "custom_voice-1.7b": {"model_type": "custom_voice", "size": "tiny-1.7b", "seed": SEED},
    "voice_design": {"model_type": "voice_design", "size": "tiny", "seed": SEED},
}
PACKAGES = ("qwen-tts", "transformers", "torch", "numpy", "librosa", "tokenizers", "safetensors")

TEXTS = {
    "english": "Hello, world! The keeper speaks slowly.",
    "chinese": "你好，世界！今天天气很好。",
    "mixed": "It's 3:45 pm, café no. 27; déjà vu 😀 ok?",
}
TEXT_LANGUAGES = {"english": "english", "chinese": "chinese", "mixed": "auto"}
LAYOUTS = {"nonstreaming": True, "streaming": False}  # the official argument non_streaming_mode
REFERENCE_TEXT = "The waves counted him, and the light came on again when the boat was gone."
INSTRUCT = "Please speak with a warm and calm voice."

N_TALKER_FRAMES = 40
N_DECODER_FRAMES = 100
N_GENERATED_FRAMES = 40
N_MODE_FRAMES = 30
CODE_SEEDS = {"talker": 40, "codec_decoder": 100}
ENCODER_LENGTHS = (47_000, 1, 5_760, 7_200, 5_000)
# Codes alone: 290 transformer positions, more than the window of 250 in the config; and a minute.
LONG_ENCODER_LENGTHS = (278_400, 1_440_000)
PROMPT_COLUMNS = 4

SCRATCH = tempfile.TemporaryDirectory(prefix="golden-")  # removed when the program ends


# -------------------------------------------------------------------------------------------------------- the reference


@cache
def official_package() -> types.ModuleType:
    """qwen_tts, imported with an empty torchaudio: it needs the real one for its unreleased 25 Hz tokenizer only."""
    for name in ("torchaudio", "torchaudio.compliance", "torchaudio.compliance.kaldi"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules["torchaudio.compliance"].__dict__["kaldi"] = sys.modules["torchaudio.compliance.kaldi"]
    return importlib.import_module("qwen_tts")


@cache
def checkpoint(name: str) -> Path:
    """Folder of a checkpoint of CHECKPOINTS, written on first use."""
    return tiny.write_checkpoint(Path(SCRATCH.name) / name, **CHECKPOINTS[name])


@cache
def reference(name: str) -> Qwen3TTSModel:
    """The official wrapper over a checkpoint: `.model` is the network, `.model.speech_tokenizer.model` the codec."""
    return official_package().Qwen3TTSModel.from_pretrained(
        str(checkpoint(name)), dtype=torch.float32, attn_implementation="eager"
    )


@cache
def speaker_vector() -> Tensor:
    """The x-vector of the test clip."""
    return reference("base").model.extract_speaker_embedding(tiny.reference_clip(), 24_000)


def text_ids(wrapper: Qwen3TTSModel, text: str) -> Tensor:
    """Ids of the whole assistant turn, [1, tokens]."""
    return wrapper._tokenize_texts([wrapper._build_assistant_text(text)])[0]


def x_vector_voice() -> dict[str, list[Any]]:
    """The voice_clone_prompt of a voice that has a speaker vector only."""
    return {
        "ref_code": [None], "ref_spk_embedding": [speaker_vector()], "x_vector_only_mode": [True], "icl_mode": [False],
    }  # fmt: skip


class PromptReady(Exception):
    """Raised in place of the talker's generation, with its arguments."""


def talker_arguments(wrapper: Qwen3TTSModel, **arguments: Any) -> dict[str, Any]:
    """What the official generate() hands to the talker: inputs_embeds, trailing_text_hidden, tts_pad_embed, ..."""

    def stop(**talker_arguments: Any) -> None:
        raise PromptReady(talker_arguments)

    with mock.patch.object(wrapper.model.talker, "generate", stop):
        try:
            wrapper.model.generate(**arguments)
        except PromptReady as ready:
            return dict(ready.args[0])
    raise AssertionError("the talker was not called")


@contextmanager
def outputs_of(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Record what each module returns, call after call, while the block runs."""
    recorded: dict[str, list[Tensor]] = {name: [] for name in modules}

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            recorded[name].append(getattr(output, "last_hidden_state", output))

        return record

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def calls_of(owner: Any, method: str, **added: Any) -> Iterator[list[tuple[dict[str, Any], Any]]]:
    """Record (arguments, result) of each call of a method while the block runs; it gets the added arguments too."""
    official = getattr(owner, method)
    calls: list[tuple[dict[str, Any], Any]] = []

    def call(**arguments: Any) -> Any:
        result = official(**arguments, **added)
        calls.append((arguments, result))
        return result

    with mock.patch.object(owner, method, call):
        yield calls


# --------------------------------------------------------------------------------------------------------------- arrays


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def rows(tensor: Tensor) -> np.ndarray:
    """[1, channels, time] -> [time, channels]."""
    return array(tensor)[0].T


def every(name: str, values: np.ndarray, row_step: int, column_step: int) -> Arrays:
    """Every n-th row and m-th column of a large array, and the steps."""
    return {name: values[::row_step, ::column_step], f"{name}.steps": np.array([row_step, column_step], np.int32)}


def codes(tensor: Tensor) -> np.ndarray:
    return array(tensor).astype(np.int16)


def top_gap(scores: Tensor) -> Tensor:
    """How far the best score is ahead of the second, along the last axis."""
    best = scores.topk(2, dim=-1).values
    return best[..., 0] - best[..., 1]


def random_codes(stage: str, n_frames: int) -> np.ndarray:
    """Fixed codes, [n_frames, 16]."""
    random = np.random.RandomState(CODE_SEEDS[stage])
    return random.randint(0, tiny.CODEBOOK_SIZE, (n_frames, tiny.N_CODEBOOKS))


# --------------------------------------------------------------------------------------------------------------- stages


def make_mel() -> Arrays:
    """The speaker encoder's log-mel spectrogram of the test clip, and the clip's start to check the formula with."""
    model = reference("base").model
    inputs: list[Tensor] = []
    handle = model.speaker_encoder.register_forward_pre_hook(lambda module, arguments: inputs.extend(arguments))
    model.extract_speaker_embedding(tiny.reference_clip(), 24_000)
    handle.remove()
    return {"clip_start": tiny.reference_clip()[:512], "mel": array(inputs[0])[0]}


def make_speaker() -> Arrays:
    """The speaker encoder on the test clip after each block, and the vector; the vector of 0.3 s as well."""
    model = reference("base").model
    encoder = model.speaker_encoder
    blocks = {f"block{i}": block for i, block in enumerate(encoder.blocks)}
    with outputs_of({**blocks, "mfa": encoder.mfa, "asp": encoder.asp}) as outputs:
        vector = model.extract_speaker_embedding(tiny.reference_clip(), 24_000)
    arrays: Arrays = {}
    for name in (*blocks, "mfa"):
        arrays |= every(name, rows(outputs[name][0]), 1, 4 if name != "mfa" else 12)
    arrays["asp"] = rows(outputs["asp"][0])[0]
    arrays["vector"] = array(vector)
    arrays["vector_7200"] = array(model.extract_speaker_embedding(tiny.reference_clip(7_200), 24_000))
    return arrays


def make_prompt() -> Arrays:
    """Talker input and trailing text of every text, voice, language and layout:
    "<text>.<voice>.<language>.<layout>.prompt" and ".trailing"; "<text>.ids"; "voice" is the speaker vector."""
    wrapper = reference("base")
    voices = {"xvector": x_vector_voice(), "none": None}
    arrays: Arrays = {"voice": array(speaker_vector())}
    for text_name, text in TEXTS.items():
        ids = text_ids(wrapper, text)
        arrays[f"{text_name}.ids"] = array(ids)[0].astype(np.int32)
        for voice_name, voice in voices.items():
            for language in ("english", "chinese", "auto"):
                for layout, non_streaming in LAYOUTS.items():
                    prompt = talker_arguments(
                        wrapper,
                        input_ids=[ids],
                        voice_clone_prompt=voice,
                        languages=[language],
                        non_streaming_mode=non_streaming,
                    )
                    case = f"{text_name}.{voice_name}.{language}.{layout}"
                    arrays |= prompt_arrays(case, prompt)
    arrays["steps"] = np.array([1, PROMPT_COLUMNS], np.int32)
    return arrays


def prompt_arrays(case: str, prompt: dict[str, Any]) -> Arrays:
    """All rows and every 4th column of the talker's input and of the text still to come."""
    return {
        f"{case}.prompt": array(prompt["inputs_embeds"])[0, :, ::PROMPT_COLUMNS],
        f"{case}.trailing": array(prompt["trailing_text_hidden"])[0, :, ::PROMPT_COLUMNS],
    }


def forced_talker(layout: str, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Run the talker over the English prompt and then over given frames, through the official forward().

    Returns prompt [T, hidden], inputs [frames, hidden], hidden [1 + frames, hidden] (after the final norm: behind the
    prompt, then behind each frame) and logits [1 + frames, 3072].
    """
    wrapper = reference("base")
    talker = wrapper.model.talker
    prompt = talker_arguments(
        wrapper,
        input_ids=[text_ids(wrapper, TEXTS["english"])],
        voice_clone_prompt=x_vector_voice(),
        languages=["english"],
        non_streaming_mode=LAYOUTS[layout],
    )
    text = {key: prompt[key] for key in ("trailing_text_hidden", "tts_pad_embed")}
    inputs: list[Tensor] = []
    handle = talker.model.register_forward_pre_hook(
        lambda module, positional, named: inputs.append(named["inputs_embeds"]), with_kwargs=True
    )
    output = talker(inputs_embeds=prompt["inputs_embeds"], use_cache=True, **text)
    outputs = [output]
    for frame in torch.from_numpy(frames)[:, None]:
        predicted = types.SimpleNamespace(sequences=frame[:, 1:])
        with mock.patch.object(talker.code_predictor, "generate", return_value=predicted):
            output = talker(
                input_ids=frame[:, :1],
                past_hidden=output.past_hidden,
                past_key_values=output.past_key_values,
                generation_step=output.generation_step,
                use_cache=True,
                **text,
            )
        outputs.append(output)
    handle.remove()
    return {
        "prompt": array(inputs[0])[0],
        "inputs": array(torch.cat(inputs[1:], dim=1))[0],
        "hidden": array(torch.cat([output.past_hidden for output in outputs], dim=1))[0],
        "logits": array(torch.cat([output.logits[:, -1] for output in outputs])),
    }


def make_talker() -> Arrays:
    """Teacher-forced talker on the English text in both layouts: "<layout>.prompt", ".inputs" (one row for each frame
    of "codes"), ".hidden" and ".logits" (one row more, the first behind the prompt), ".best" (argmax of the logits)."""
    frames = random_codes("talker", N_TALKER_FRAMES)
    arrays: Arrays = {"codes": frames.astype(np.int16)}
    for layout in LAYOUTS:
        run = forced_talker(layout, frames)
        for name in ("prompt", "inputs", "hidden"):
            arrays[f"{layout}.{name}"] = run[name]
        arrays |= every(f"{layout}.logits", run["logits"], 1, 16)
        arrays[f"{layout}.best"] = run["logits"].argmax(axis=1).astype(np.int16)
    return arrays


def make_predictor() -> Arrays:
    """Teacher-forced code predictor: for each frame of "codes" and row of "hidden" (the talker's, streaming layout) 15
    rows of logits. "logits" holds those of "logits.frames" whole; "slice" the first 16 of every row, "best" argmax."""
    frames = random_codes("talker", N_TALKER_FRAMES)
    hidden = forced_talker("streaming", frames)["hidden"][:-1]
    talker = reference("base").model.talker
    code_rows = torch.from_numpy(frames)
    books = [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
    embeddings = [book(code_rows[:, i]) for i, book in enumerate(books[:-1])]
    inputs = torch.stack([torch.from_numpy(hidden), *embeddings], dim=1)
    logits = array(talker.code_predictor.forward_finetune(inputs_embeds=inputs).logits)
    whole = np.array([0, 1, 20, 39], np.int32)
    return {
        "hidden": hidden,
        "codes": frames.astype(np.int16),
        "logits": logits[whole],
        "logits.frames": whole,
        "slice": logits[:, :, :16],
        "best": logits.argmax(axis=2).astype(np.int16),
    }


def make_codec_decoder() -> Arrays:
    """The codec decoder on fixed codes, whole (not in the official chunks): each stage and the waveform."""
    decoder = reference("base").model.speech_tokenizer.model.decoder
    frames = random_codes("codec_decoder", N_DECODER_FRAMES)
    stages = {"pre_conv": decoder.pre_conv, "pre_transformer": decoder.pre_transformer}
    stages |= {f"upsample{i}": blocks[-1] for i, blocks in enumerate(decoder.upsample)}
    stages |= {"entry": decoder.decoder[0]}
    stages |= {f"block{i}": block for i, block in enumerate(decoder.decoder[1:-2])}
    batch = torch.from_numpy(frames).T[None]
    with outputs_of(stages) as outputs:
        waveform = decoder(batch)
    arrays: Arrays = {"codes": frames.astype(np.int16)}
    arrays |= every("quantizer", rows(decoder.quantizer.decode(batch)), 1, 4)
    arrays |= every("pre_conv", rows(outputs["pre_conv"][0]), 1, 8)
    arrays |= every("pre_transformer", array(outputs["pre_transformer"][0])[0], 1, 8)
    steps = {
        "upsample0": (1, 16), "upsample1": (3, 8), "entry": (3, 8),
        "block0": (11, 8), "block1": (37, 8), "block2": (101, 4), "block3": (211, 2),
    }  # fmt: skip
    for name, (row_step, column_step) in steps.items():
        arrays |= every(name, rows(outputs[name][0]), row_step, column_step)
    arrays["waveform"] = array(waveform)[0, 0]
    return arrays


def make_codec_encoder() -> Arrays:
    """The codec encoder on the test clip and on awkward lengths: "<samples>.seanet", ".transformer", ".downsample" and
    ".codes" with ".gap"; of a clip longer than the transformer's configured window only the codes."""
    codec = reference("base").model.speech_tokenizer
    encoder = codec.model.encoder
    stages = {"seanet": encoder.encoder, "transformer": encoder.encoder_transformer, "downsample": encoder.downsample}
    arrays: Arrays = {}
    for n_samples in (*ENCODER_LENGTHS, *LONG_ENCODER_LENGTHS):
        gaps: list[Tensor] = []

        def nearest(book: MimiEuclideanCodebook, vectors: Tensor, gaps: list[Tensor] = gaps) -> Tensor:
            distances = torch.cdist(vectors[None], book.embed[None])[0]
            gaps.append(top_gap(-distances))
            return distances.argmin(dim=-1)

        clip = tiny.reference_clip(n_samples)
        with outputs_of(stages) as outputs:
            found = codes(codec.encode(clip, sr=24_000).audio_codes[0])
        with mock.patch.object(MimiEuclideanCodebook, "quantize", nearest):
            assert np.array_equal(found, codes(codec.encode(clip, sr=24_000).audio_codes[0]))
        arrays[f"{n_samples}.codes"] = found
        arrays[f"{n_samples}.gap"] = array(torch.stack(gaps[: tiny.N_CODEBOOKS], dim=1))
        if n_samples not in LONG_ENCODER_LENGTHS:
            arrays |= every(f"{n_samples}.seanet", rows(outputs["seanet"][0]), 1, 4)
            arrays |= every(f"{n_samples}.transformer", array(outputs["transformer"][0])[0], 1, 4)
            arrays |= every(f"{n_samples}.downsample", rows(outputs["downsample"][0]), 1, 4)
    return arrays


def greedy(n_frames: int) -> dict[str, Any]:
    """Arguments of a greedy generation of so many frames: a frame is complete when the next step begins."""
    return {"do_sample": False, "subtalker_dosample": False, "max_new_tokens": n_frames + 1}


def make_generate() -> Arrays:
    """Greedy generations of the official generate() with its default penalties, x-vector voice, non-streaming layout:
    "<text>.codes", ".talker.gap" [frames] (after penalty and suppression) and ".predictor.gap" [frames, 15]. The text
    "english" once more on the checkpoint whose predictor has no input projection: "0.6b.english"."""
    arrays: Arrays = {}
    cases = [("base", text, text) for text in TEXTS] + [("base-0.6b", "english", "0.6b.english")]
    for name, text, case in cases:
        wrapper = reference(name)
        talker = wrapper.model.talker
        heads = {str(i): head for i, head in enumerate(talker.code_predictor.lm_head)}
        with calls_of(talker, "generate", output_scores=True) as calls, outputs_of(heads) as logits:
            generated, _ = wrapper.model.generate(
                input_ids=[text_ids(wrapper, TEXTS[text])],
                voice_clone_prompt=x_vector_voice(),
                languages=[TEXT_LANGUAGES[text]],
                non_streaming_mode=True,
                **greedy(N_GENERATED_FRAMES),
            )
        assert generated[0].shape == (N_GENERATED_FRAMES, tiny.N_CODEBOOKS), "stopped early: change the text"
        [(_, result)] = calls
        gaps = [torch.cat([top_gap(step[:, -1]) for step in steps]) for steps in logits.values()]
        arrays[f"{case}.codes"] = codes(generated[0])
        arrays[f"{case}.talker.gap"] = array(top_gap(torch.cat(result.scores)))[:N_GENERATED_FRAMES]
        arrays[f"{case}.predictor.gap"] = array(torch.stack(gaps, dim=1))
    return arrays


def mode_cases() -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(case, checkpoint, method of the official wrapper, its arguments) for every way to choose a voice."""
    clip = (tiny.reference_clip(), 24_000)
    english = {"text": TEXTS["english"], "language": "english"}
    clone = {**english, "ref_audio": clip}
    yield "clone", "base", "generate_voice_clone", {**clone, "ref_text": REFERENCE_TEXT}
    # fewer text rows than reference frames: the streaming layout pads the text, above it cuts it
    yield "clone_short", "base", "generate_voice_clone", {**clone, "text": "Hello!", "ref_text": "The light."}
    yield "xvector", "base", "generate_voice_clone", {**clone, "x_vector_only_mode": True}
    for language in ("chinese", "auto"):
        in_context = {**clone, "ref_text": REFERENCE_TEXT, "language": language}
        yield f"clone.{language}", "base", "generate_voice_clone", in_context
        by_vector = {**clone, "x_vector_only_mode": True, "language": language}
        yield f"xvector.{language}", "base", "generate_voice_clone", by_vector
    for speaker in ("vivian", "dylan"):  # dylan speaks a dialect, which overrides auto and chinese
        for language in ("auto", "chinese", "english"):
            arguments = {"text": TEXTS["chinese"], "language": language, "speaker": speaker}
            yield f"preset.{speaker}.{language}", "custom_voice", "generate_custom_voice", arguments
    # the official wrapper drops the instruction of a 0.6B model
    instructed = {**english, "speaker": "vivian", "instruct": INSTRUCT}
    yield "preset_instruct", "custom_voice-1.7b", "generate_custom_voice", instructed
    for language in ("chinese", "auto"):
        arguments = {**instructed, "language": language}
        yield f"preset_instruct.{language}", "custom_voice-1.7b", "generate_custom_voice", arguments
    design = {"text": TEXTS["english"], "language": "auto", "instruct": INSTRUCT}
    yield "design", "voice_design", "generate_voice_design", design
    for language in ("english", "chinese"):
        arguments = {**design, "language": language}
        yield f"design.{language}", "voice_design", "generate_voice_design", arguments


def mode_arrays(case: str, name: str, method: str, arguments: dict[str, Any]) -> Arrays:
    """Of one case in both layouts."""
    arrays: Arrays = {}
    wrapper = reference(name)
    for layout, non_streaming in LAYOUTS.items():
        with (
            calls_of(wrapper.model.talker, "generate") as talker_calls,
            calls_of(wrapper.model, "generate") as calls,
        ):
            waveforms, _ = getattr(wrapper, method)(
                non_streaming_mode=non_streaming, **greedy(N_MODE_FRAMES), **arguments
            )
        [(prompt, _)] = talker_calls
        [(given, (generated, _))] = calls
        assert generated[0].shape == (N_MODE_FRAMES, tiny.N_CODEBOOKS), "stopped early: change the text"
        arrays |= prompt_arrays(f"{case}.{layout}", prompt)
        arrays[f"{case}.{layout}.codes"] = codes(generated[0])
        if case in ("clone", "clone_short", "default"):
            arrays[f"{case}.reference_codes"] = codes(given["voice_clone_prompt"]["ref_code"][0])
            arrays |= every(f"{case}.{layout}.waveform", waveforms[0][:, None], 17, 1)
    return arrays


def make_modes() -> Arrays:
    """Prompt, trailing text and 30 greedy frames of every way to choose a voice, in both layouts:
    "<case>.<layout>.prompt", ".trailing", ".codes"; for the clones "<case>.reference_codes" and ".waveform"."""
    arrays: Arrays = {"steps": np.array([1, PROMPT_COLUMNS], np.int32)}
    for case in mode_cases():
        arrays |= mode_arrays(*case)
    return arrays


def make_default_voice() -> Arrays:
    """The same of the default voice, the case "default": the first clip of models/voices with its transcript. As in the
    product its codes are of the clip with half a second of silence after it, its speaker vector of the clip alone."""
    voices = HERE.parents[1] / "models" / "voices"
    row = json.loads((voices / "voices.json").read_text("utf-8"))[0]
    samples, rate_hz = soundfile.read(voices / f"{row['name']}.flac", dtype="float32")
    padded = np.pad(samples, (0, rate_hz // 2))
    [voice], [of_codes] = (
        reference("base").create_voice_clone_prompt(ref_audio=(clip, rate_hz), ref_text=row["transcript"])
        for clip in (samples, padded)
    )
    voice.ref_code = of_codes.ref_code
    arguments = {"text": TEXTS["english"], "language": "english", "voice_clone_prompt": [voice]}
    steps = {"steps": np.array([1, PROMPT_COLUMNS], np.int32)}
    return steps | mode_arrays("default", "base", "generate_voice_clone", arguments)


STAGES: dict[str, Callable[[], Arrays]] = {
    "mel": make_mel,
    "speaker": make_speaker,
    "prompt": make_prompt,
    "talker": make_talker,
    "predictor": make_predictor,
    "codec_decoder": make_codec_decoder,
    "codec_encoder": make_codec_encoder,
    "generate": make_generate,
    "modes": make_modes,
    "default_voice": make_default_voice,
}


# ---------------------------------------------------------------------------------------------------------------- files


def write_stage(stage: str) -> None:
    """Compute a stage, check that its numbers are numbers, write <stage>.npz and say how large it is."""
    arrays = {name: np.ascontiguousarray(values) for name, values in STAGES[stage]().items()}
    for name, values in arrays.items():
        assert values.dtype in (np.float32, np.int16, np.int32), f"{stage}: {name} is {values.dtype}"
        assert np.isfinite(values).all(), f"{stage}: {name} is not finite"
    file = HERE / f"{stage}.npz"
    np.savez_compressed(file, **arrays)
    print(f"{file.name}: {len(arrays)} arrays, {file.stat().st_size:,} bytes")


def write_versions() -> None:
    """versions.json: with what the files were made, and digests by which a test knows its checkpoint is the same."""
    digests = {}
    for name in CHECKPOINTS:
        files = ("model.safetensors", "speech_tokenizer/model.safetensors", "vocab.json", "merges.txt")
        digests[name] = {file: hashlib.sha256((checkpoint(name) / file).read_bytes()).hexdigest() for file in files}
    versions = {
        "python": platform.python_version(),
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
        "checkpoints": {name: {**arguments, "sha256": digests[name]} for name, arguments in CHECKPOINTS.items()},
        "code_seeds": CODE_SEEDS,
        "texts": {**TEXTS, "reference": REFERENCE_TEXT, "instruct": INSTRUCT},
    }
    tiny.write_json(HERE / "versions.json", versions)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the golden files with the official package.")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    for stage in options.only:
        write_stage(stage)
    write_versions()


if __name__ == "__main__":
    main()
