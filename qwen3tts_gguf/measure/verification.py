"""What quantizing a model changed: it and a reference of the same checkpoint, given the same, frame by frame.

    reference ─ speaks each text, sampled ─> codes ─┬─> reference, codes forced ─┐
                                                    └─> model, codes forced ─────┴─> agreement
    speaker vectors: both listen to one clip        greedy runs: both speak each text by themselves

Forced: whatever a model would have chosen, it continues from the reference's codes. So every frame is compared after
the same past, and one early difference does not count in all that follows. All else is the model's own: its token
table, its keys and values, and its code predictor gets the hidden states of its own talker, as in use. Only the voice
is made once, by the reference.

Logits are compared at temperature 1, without the rest of the sampler (penalty, top-k, top-p). Those of code 0 after
suppression: over the codes and end of speech, since tokens that are never generated must not count here either.

The pairs are in memory one after the other; of the reference stays what it answered, 0.14 MB per frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..audio import read_audio
from ..engine.forced import teacher_forced
from ..errors import ModelFileError, TextError
from ..model.files import ModelFiles
from ..model.gguf_file import GgufFile
from ..model.schema import CODEC_VOCABULARY, N_CODEBOOKS, SAMPLE_RATE_HZ, Key, Shape
from ..tts import TTS, SpeechOptions
from ..voice.clip import MAX_REFERENCE_SECONDS
from ..voice.voice import Voice
from .agreement import cosine, divergence, rank, snr_db
from .benchmark import plain_voice
from .inspection import weight_types
from .verdict import Codebook, Report, Spoken, Subject

__all__ = ["TEXTS", "compare"]

TEXTS = (
    "The quick brown fox jumps over the lazy dog, again and again.",
    "Wait, is that really what she said? I can hardly believe it!",
    "On the 3rd of May 1997, at 8:45 p.m., 12 of the 60 lamps went out.",
    "Am Morgen war der See so still, dass man die Glocken im Dorf hören konnte.",
    "今天天气很好，我们一起去公园散步吧。",
)
"""Spoken when no others are given: a statement, questions, numbers, two more languages."""

_NETS = ("token_embd.", "blk.", "a.gen.")


def compare(
    model: Path,
    against: Path,
    *,
    mmproj: Path | None = None,
    against_mmproj: Path | None = None,
    texts: Sequence[str] = TEXTS,
    options: SpeechOptions = SpeechOptions(seed=0, max_frames=75),
    choose_voice: Callable[[TTS], Voice | None] = plain_voice,
    clip: Path | None = None,
    unrecorded: bool = False,
    n_threads: int | None = None,
    amx: str = "auto",
    device: str = "cpu",
    on_stage: Callable[[str], None] = lambda _: None,
) -> Report:
    """Hold `model` against a pair of the same checkpoint in a larger type, best F32.

    options: how the reference speaks the texts, and how long at most. choose_voice: makes the voice, with the
    reference. clip: what the speaker encoders listen to; None is the reference's own speech. unrecorded: take files
    that do not record their checkpoint, such as those of llama.cpp's converter. on_stage receives the name of the
    next stage. device: where the model computes; the reference is on the CPU.

    Raises ModelFileError for pairs of different checkpoints, before either is loaded; TextError without a text; and all
    that loading and speaking raise.
    """
    if not texts:
        raise TextError("there is no text to compare the models with")
    pairs = ModelFiles(model, mmproj), ModelFiles(against, against_mmproj)
    _require_same_checkpoint(*pairs, unrecorded)
    has_speaker_encoders = all(pair.mmproj.speaker_encoder is not None for pair in pairs)

    def reference() -> tuple[_Script, list[_Answer], NDArray[np.float32] | None]:
        """A function, so that its model is gone when it is over."""
        on_stage("the reference: loading")
        tts = TTS(against, mmproj=against_mmproj, n_threads=n_threads, amx=amx)
        on_stage("the reference: speaking")
        script = _written(tts, choose_voice(tts), texts, options, clip)
        answers = list(_answers(tts, script, lambda stage: on_stage(f"the reference: {stage}")))
        return script, answers, _speaker_vector(tts, script) if has_speaker_encoders else None

    script, expected, expected_vector = reference()
    on_stage("the model: loading")
    tts = TTS(model, mmproj=mmproj, n_threads=n_threads, amx=amx, device=device)
    answers = _answers(tts, script, lambda stage: on_stage(f"the model: {stage}"))
    near = [_Nearness.of(*of_line) for of_line in zip(script.lines, answers, expected, strict=True)]
    speaker_cosine = None
    if expected_vector is not None:
        speaker_cosine = float(cosine(_speaker_vector(tts, script), expected_vector))
    return _report(*pairs, near, speaker_cosine)


def _require_same_checkpoint(model: ModelFiles, against: ModelFiles, unrecorded: bool) -> None:
    files = (model.talker.file, against.talker.file), (model.mmproj.file, against.mmproj.file)
    for ours, theirs in files:
        for file in ours, theirs:
            if not unrecorded and not file.strings(Key.SOURCE_SHA256):
                raise ModelFileError(
                    f"{file.path}: does not record its checkpoint, so it may have been made from another one",
                    hint="convert the checkpoint with qwen3tts convert, or compare anyway with `unrecorded`",
                )
        digests = [file.strings(Key.SOURCE_SHA256) for file in (ours, theirs)]
        if all(digests) and digests[0] != digests[1]:
            raise ModelFileError(f"{ours.path} and {theirs.path} were converted from different checkpoints")
        if _shapes(ours) != _shapes(theirs):
            raise ModelFileError(f"{ours.path} and {theirs.path} are models of different sizes")


def _shapes(file: GgufFile) -> dict[str, Shape]:
    """Of the nets that both must have; encoders may be missing."""
    return {info.name: info.shape for info in file.tensors.values() if info.name.startswith(_NETS)}


# -- asking a model ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    text: str
    codes: NDArray[np.int32]  # [T, 16], as the reference generated them


@dataclass(frozen=True)
class _Script:
    """What both models are given."""

    voice: Voice | None
    options: SpeechOptions
    lines: list[_Line]
    clip: NDArray[np.float32]  # [n] at 24 kHz, for the speaker encoders


@dataclass(frozen=True)
class _Answer:
    """What a model predicts for one line; T is its number of frames."""

    hidden: NDArray[np.float32]  # [T, hidden], the talker's
    logits: NDArray[np.float32]  # [T, codes and end of speech], of code 0
    predictor: NDArray[np.float32]  # [T, 15, codebook_size]
    samples: NDArray[np.float32]  # [T * 1920]
    greedy: NDArray[np.int32]  # [frames of its own, 16]


def _written(tts: TTS, voice: Voice | None, texts: Sequence[str], options: SpeechOptions, clip: Path | None) -> _Script:
    lines, speech = [], []
    for text in texts:
        with tts.utter(text, voice, options) as utterance:
            utterance.finish()
        speech.append(utterance.samples)
        lines.append(_Line(text, utterance.codes))
    samples = np.concatenate(speech) if clip is None else read_audio(clip)
    return _Script(voice, options, lines, samples[: round(MAX_REFERENCE_SECONDS * SAMPLE_RATE_HZ)])


def _answers(tts: TTS, script: _Script, on_stage: Callable[[str], None]) -> Iterator[_Answer]:
    allowed = np.setdiff1d(np.arange(CODEC_VOCABULARY), tts.vocabulary.suppressed)
    for i, line in enumerate(script.lines):
        on_stage(f"text {i + 1} of {len(script.lines)}")
        forced = teacher_forced(tts.engine, tts.request(line.text, script.voice, script.options), line.codes)
        with tts.utter(line.text, script.voice, replace(script.options, greedy=True)) as utterance:
            utterance.finish()
        yield _Answer(
            hidden=forced.hidden,
            logits=forced.logits[:, allowed],
            predictor=forced.predictor_logits,
            samples=forced.samples,
            greedy=utterance.codes,
        )


def _speaker_vector(tts: TTS, script: _Script) -> NDArray[np.float32]:
    """[hidden], without the notes that making a voice gives: the clip is the reference's own speech, not the user's
    choice."""
    return tts.voice_encoder.speaker_vector(script.clip)


# -- adding up ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Nearness:
    """Of two answers to one line; T are its frames."""

    cosine: NDArray[np.float64]  # [T], of the hidden states
    kl: NDArray[np.float64]  # [T, 16]
    rank: NDArray[np.intp]  # [T, 16]
    samples: tuple[NDArray[np.float32], NDArray[np.float32]]  # [T * 1920] each, found and expected
    spoken: Spoken

    @classmethod
    def of(cls, line: _Line, found: _Answer, expected: _Answer) -> _Nearness:
        code0, others = (found.logits[:, None], expected.logits[:, None]), (found.predictor, expected.predictor)
        return cls(
            cosine=cosine(found.hidden, expected.hidden),
            kl=np.concatenate([divergence(*code0), divergence(*others)], axis=1),
            rank=np.concatenate([rank(*code0), rank(*others)], axis=1),
            samples=(found.samples, expected.samples),
            spoken=_spoken(line, found.greedy, expected.greedy),
        )


def _spoken(line: _Line, found: NDArray[np.int32], expected: NDArray[np.int32]) -> Spoken:
    """found, expected: the codes of the greedy runs, [frames, 16] each"""
    n_both, n_longer = sorted((len(found), len(expected)))
    same = found[:n_both] == expected[:n_both]
    differing = [*np.flatnonzero(~same.all(axis=1)), *([n_both] if n_both < n_longer else [])]
    return Spoken(
        text=line.text,
        frames=len(line.codes),
        greedy_frames=n_longer,
        greedy_equal=float(same.sum()) / (n_longer * N_CODEBOOKS),
        first_difference=int(differing[0]) if differing else None,
    )


def _report(model: ModelFiles, against: ModelFiles, near: list[_Nearness], speaker_cosine: float | None) -> Report:
    cosines = np.concatenate([text.cosine for text in near])
    kl, ranks = np.concatenate([text.kl for text in near]), np.concatenate([text.rank for text in near])
    found, expected = (np.concatenate(samples) for samples in zip(*(text.samples for text in near), strict=True))
    return Report(
        model=_subject(model),
        against=_subject(against),
        frames=len(cosines),
        hidden_cosine=float(cosines.mean()),
        hidden_cosine_min=float(cosines.min()),
        codebooks=tuple(
            Codebook(
                kl=float(kl[:, i].mean()), top1=float((ranks[:, i] < 1).mean()), top5=float((ranks[:, i] < 5).mean())
            )
            for i in range(N_CODEBOOKS)
        ),
        snr_db=snr_db(found, expected),
        max_error=float(np.abs(found - expected).max()),
        speaker_cosine=speaker_cosine,
        texts=tuple(text.spoken for text in near),
    )


def _subject(pair: ModelFiles) -> Subject:
    files = str(pair.talker.file.path), str(pair.mmproj.file.path)
    return Subject(pair.talker.name, files, weight_types(pair))
