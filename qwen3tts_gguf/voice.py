"""A voice: who speaks. What of a reference clip the talker needs, a preset of the model, or a description.

A clip gives up to two things. Its speaker vector tells who speaks; it fits models of one size. Its codes, with the
words said in it, let the talker go on as that speaker (in-context cloning), which sounds closer; they fit every model
with the same codec. `VoiceEncoder` makes both, and is the only one that needs the encoders.
"""

from __future__ import annotations

import hashlib
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from .audio import origin, read_audio, resample, sample_problem
from .errors import AudioError, OptionError, QualityWarning
from .ggml.graph import Backend
from .ggml.types import GgmlType
from .mel import log_mel
from .model_files import MmprojFile
from .nets.codec_encoder import CodecEncoder
from .nets.speaker_encoder import SpeakerEncoder
from .schema import SAMPLE_RATE_HZ
from .voice_file import read_voice_file, write_voice_file

__all__ = ["REFERENCE_PAD_SECONDS", "Voice", "VoiceEncoder"]

REFERENCE_PAD_SECONDS = 0.5
"""Silence after the clip in its codes, without which its last sound runs into the speech (faster-qwen3-tts PR 9)."""
MAX_REFERENCE_SECONDS = 30.0
"""More reference does not sound closer, and all of it goes through the talker before the first sound."""
_SECONDS_PER_LETTER = (0.02, 0.4)
"""Speech takes about 0.07 s a Latin letter and 0.25 s a Chinese one; far outside, clip and transcript do not fit."""
_SILENCE = 1e-4
_FULL_SCALE, _CLIPPED_SHARE = 0.999, 0.002
_OFFSET = 0.05
_FRAME_RATE_HZ = 12.5

Value = TypeVar("Value", bound=np.generic)


class _HasVoiceEncoder(Protocol):
    @property
    def voice_encoder(self) -> VoiceEncoder: ...


@dataclass(frozen=True, eq=False)
class Voice:
    """Who speaks. Made by `from_audio`, `preset` or `design`; voice_store.py keeps it under a name."""

    speaker: NDArray[np.float32] | None = None
    """The speaker vector [hidden] of a clip, for models of one size."""
    codes: NDArray[np.int32] | None = None
    """The codec codes [frames, 16] of a clip."""
    transcript: str | None = None
    """What is said in it; there are codes exactly when there is a transcript."""
    preset_name: str | None = None
    """One of the model's own speakers."""
    instruct: str | None = None
    """How to speak, or for a VoiceDesign model, who."""
    language: str | None = None
    """Taken when an utterance names none."""
    codec: str = ""
    """Fingerprint of the codec the codes are of."""
    speaker_encoder: str = ""
    """Fingerprint of the encoder the speaker vector is of."""
    clip_sha256: str = ""
    """Of the clip's file, or of the samples given."""
    clip_rate_hz: int = 0
    """The clip's own sample rate."""

    @classmethod
    def from_audio(
        cls,
        audio: str | Path | NDArray[np.float32],
        tts: _HasVoiceEncoder,
        *,
        transcript: str | None = None,
        rate_hz: int | None = None,
        pad_seconds: float = REFERENCE_PAD_SECONDS,
    ) -> Voice:
        """The voice of a clip: a file libsndfile reads, or mono samples [n] with their `rate_hz`.

        transcript: what is said in the clip, for in-context cloning; without it the speaker vector alone is used.
        tts: the model that will speak. Raises AudioError, or OptionError for a model without the encoders.
        """
        if isinstance(audio, np.ndarray):
            if rate_hz is None:
                raise OptionError("samples need their sample rate: pass rate_hz")
            samples = resample(audio.astype(np.float32), rate_hz)
            sha256 = hashlib.sha256(audio.tobytes()).hexdigest()
        else:
            samples = read_audio(Path(audio))
            rate_hz, sha256 = origin(Path(audio))
        voice = tts.voice_encoder.encode(samples, transcript=transcript, pad_seconds=pad_seconds)
        return replace(voice, clip_rate_hz=rate_hz, clip_sha256=sha256)

    @classmethod
    def from_speech(cls, codes: NDArray[np.int32], text: str, codec: str) -> Voice:
        """The voice of a speech just made, as a designed one, for in-context cloning with a Base model.

        codes, text: what was said, `Utterance.codes`, and from what. codec: `TTS.codec_fingerprint`.
        """
        if not len(codes):
            raise AudioError("nothing was said that could be kept as a voice")
        codes, transcript = _windowed(codes, _FRAME_RATE_HZ, text.strip())
        return cls(codes=codes, transcript=transcript, codec=codec)

    @classmethod
    def preset(cls, name: str, *, instruct: str | None = None) -> Voice:
        """One of a CustomVoice model's speakers, by its name in any case."""
        return cls(preset_name=name.strip().lower(), instruct=instruct)

    @classmethod
    def design(cls, description: str) -> Voice:
        """A voice a VoiceDesign model makes up from words."""
        return cls(instruct=description)

    def save(self, path: str | Path) -> None:
        """Keep the voice in a small file. Raises VoiceError."""
        write_voice_file(Path(path), vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Voice:
        """A voice that was saved. Raises VoiceError."""
        return cls(**read_voice_file(Path(path)))

    @property
    def is_clone(self) -> bool:
        return self.speaker is not None or self.codes is not None

    def without_codes(self) -> Voice:
        """The speaker vector alone."""
        return replace(self, codes=None, transcript=None, codec="")


class VoiceEncoder:
    """The nets that listen to references, loaded when first used: speaking with a kept voice never loads them.

    Usable from several threads, with a backend that nothing else computes on.
    """

    def __init__(self, model: MmprojFile, backend: Backend) -> None:
        self._model, self._backend = model, backend
        self._speaker_encoder: SpeakerEncoder | None = None
        self._codec_encoder: CodecEncoder | None = None
        self._turn = threading.Lock()

    @property
    def is_loaded(self) -> bool:
        """Whether an encoder is in memory."""
        return self._speaker_encoder is not None or self._codec_encoder is not None

    def encode(
        self,
        samples: NDArray[np.float32],
        *,
        transcript: str | None = None,
        pad_seconds: float = REFERENCE_PAD_SECONDS,
    ) -> Voice:
        """samples [n] at 24 kHz -> Voice. Raises AudioError, OptionError; warns of what will not sound well."""
        if samples.ndim != 1:
            raise AudioError(f"the reference must be one channel of samples [n], not {list(samples.shape)}")
        if problem := sample_problem(samples):
            raise AudioError(f"the reference {problem}")
        if not len(samples) or not np.abs(samples - samples.mean()).max() > _SILENCE:
            raise AudioError("the reference is silent")
        if not 0 <= pad_seconds <= MAX_REFERENCE_SECONDS:
            raise OptionError(f"pad_seconds must lie in 0..{MAX_REFERENCE_SECONDS:.0f}, not {pad_seconds}")
        transcript = transcript.strip() if transcript else None
        samples, transcript = _windowed(samples, SAMPLE_RATE_HZ, transcript)
        _check_level(samples)
        if transcript:
            _check_fit(len(samples) / SAMPLE_RATE_HZ, transcript)
        padded = np.pad(samples, (0, round(pad_seconds * SAMPLE_RATE_HZ)))
        return Voice(
            speaker=self._speaker_vector(samples),
            codes=self.encode_codes(padded) if transcript else None,
            transcript=transcript,
            codec=codec_fingerprint(self._model) if transcript else "",
            speaker_encoder=speaker_fingerprint(self._model),
        )

    def encode_codes(self, samples: NDArray[np.float32]) -> NDArray[np.int32]:
        """samples [n] at 24 kHz -> codes [ceil(n / 1920), 16]. Raises OptionError without a codec encoder."""
        if self._model.encoder is None:
            raise OptionError(
                f"{self._model.file.path.name} has no codec encoder, as llama.cpp's converter writes it: convert the "
                "checkpoint with qwen3tts convert; cloning without a transcript needs none"
            )
        with self._turn:
            if self._codec_encoder is None:
                self._codec_encoder = CodecEncoder(self._model, self._backend)
            return self._codec_encoder.encode(samples)

    def _speaker_vector(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._model.speaker_encoder is None:
            raise OptionError(
                "this model cannot clone: it has no speaker encoder; use a Base model, or speak with a preset "
                "(--speaker) of a CustomVoice model, or a description (--instruct) for a VoiceDesign model"
            )
        mel = log_mel(samples, self._model.speaker_encoder.n_mels)
        with self._turn:
            if self._speaker_encoder is None:
                self._speaker_encoder = SpeakerEncoder(self._model, self._backend)
            return self._speaker_encoder.encode(mel)


def codec_fingerprint(model: MmprojFile) -> str:
    """The same for every pair with this codec, whatever its size and type: of the semantic codebook, as F16.

    Empty where that is quantized, as llama.cpp's converter does at q8_0: then nothing can be told.
    """
    name = "a.gen.wav.quant.first.codebook.weight"
    if model.file.info(name).type not in (GgmlType.F32, GgmlType.F16):
        return ""
    codebook = model.file.array(name).astype(np.float16)
    return hashlib.sha256(codebook.tobytes()).hexdigest()[:16]


def speaker_fingerprint(model: MmprojFile) -> str:
    """The same for every pair with this speaker encoder, whatever its type; empty without one."""
    if model.speaker_encoder is None:
        return ""
    return hashlib.sha256(model.file.blocks("mm.a.fc.bias").tobytes()).hexdigest()[:16]


def _windowed(clip: NDArray[Value], rate_hz: float, transcript: str | None) -> tuple[NDArray[Value], str | None]:
    """At most MAX_REFERENCE_SECONDS of a clip's samples or frames, and as much of its transcript."""
    n = round(MAX_REFERENCE_SECONDS * rate_hz)
    if len(clip) <= n:
        return clip, transcript
    message = f"the reference lasts {len(clip) / rate_hz:.1f} s; its first {MAX_REFERENCE_SECONDS:.0f} s are used"
    if transcript:
        message += ", with as much of the transcript; a clip of 3 to 15 s with its own transcript sounds better"
        transcript = _beginning(transcript, n / len(clip))
    warnings.warn(message, QualityWarning, stacklevel=4)
    return clip[:n], transcript


def _beginning(text: str, share: float) -> str:
    """About that share of a text, cut between words."""
    cut = max(1, round(len(text) * share))
    space = text.rfind(" ", 0, cut + 1)
    return text[: space if space > 0 else cut].strip()


def _check_level(samples: NDArray[np.float32]) -> None:
    loud = np.abs(samples)
    clipped = float((loud >= _FULL_SCALE).mean())
    if clipped > _CLIPPED_SHARE:
        message = f"{clipped:.1%} of the reference's samples are at full scale: it is clipped, and the voice sounds so"
        warnings.warn(message, QualityWarning, stacklevel=4)
    if abs(offset := float(samples.mean())) > _OFFSET:
        message = f"the reference lies {offset:+.2f} off its centre line: a clip without that offset sounds closer"
        warnings.warn(message, QualityWarning, stacklevel=4)


def _check_fit(seconds: float, transcript: str) -> None:
    n_letters = sum(letter.isalnum() for letter in transcript)
    fastest, slowest = _SECONDS_PER_LETTER
    if not fastest * n_letters <= seconds <= slowest * n_letters:
        warnings.warn(
            f"a transcript of {n_letters} letters does not fit a clip of {seconds:.1f} s: the speech may degenerate; "
            "the transcript must say exactly what the clip says",
            QualityWarning,
            stacklevel=4,
        )
