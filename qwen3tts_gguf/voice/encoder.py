"""Makes voices from reference clips with the speaker encoder and the codec encoder; fingerprints of both."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..audio import sample_problem
from ..errors import AudioError, DeviceError, Note, OptionError
from ..ggml.device import Backend
from ..ggml.devices import CPU, Device
from ..ggml.types import GgmlType
from ..model.files import MmprojFile
from ..model.schema import SAMPLE_RATE_HZ
from ..nets.codec_encoder import CodecEncoder
from ..nets.mel import log_mel
from ..nets.speaker_encoder import SpeakerEncoder
from ..speech.text import clean_text
from .clip import (
    MAX_REFERENCE_SECONDS,
    REFERENCE_PAD_SECONDS,
    SILENCE,
    fit_notes,
    level_notes,
    windowed,
    without_silent_edges,
)
from .voice import Voice

__all__ = ["VoiceEncoder", "codec_fingerprint", "speaker_fingerprint"]

Result = TypeVar("Result")


class VoiceEncoder:
    """The nets that encode reference clips, loaded when first used: speaking with a saved voice never loads them.

    Usable from any thread; callers wait for each other. Each call computes on a thread that ends with it, and takes its
    team of OpenMP threads with it: a team left idle slows all others down (engine/codec_stage.py).

    device: where they compute, from the first clip on that it lacks an operation or the memory for: the CPU.
    """

    def __init__(self, model: MmprojFile, n_threads: int, device: Device = CPU) -> None:
        self._model, self._n_threads = model, n_threads
        self._device = device
        self._started: Backend | None = None
        self.placed = device.name
        """The device that computes, and why it is the CPU if it was to be another."""
        self.notes: tuple[Note, ...] = ()
        """The same reason, once there is one; voices made from then on have it among theirs."""
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
        """samples [n] at 24 kHz -> Voice, with notes on what may not sound well. Raises AudioError, OptionError."""
        if samples.ndim != 1:
            raise AudioError(f"the reference must be one channel of samples [n], not {list(samples.shape)}")
        if problem := sample_problem(samples):
            raise AudioError(f"the reference {problem}")
        if not len(samples) or not np.abs(samples - samples.mean()).max() > SILENCE:
            raise AudioError("the reference is silent")
        if not 0 <= pad_seconds <= MAX_REFERENCE_SECONDS:
            raise OptionError(f"pad_seconds must lie in 0..{MAX_REFERENCE_SECONDS:.0f}, not {pad_seconds}")
        transcript = clean_text(transcript) if transcript else None
        samples = without_silent_edges(samples, SAMPLE_RATE_HZ)
        samples, transcript, notes = windowed(samples, SAMPLE_RATE_HZ, transcript)
        notes += level_notes(samples, SAMPLE_RATE_HZ)
        if transcript:
            notes += fit_notes(len(samples) / SAMPLE_RATE_HZ, transcript)
        padded = np.pad(samples, (0, round(pad_seconds * SAMPLE_RATE_HZ)))
        speaker, codes = self.speaker_vector(samples), self.encode_codes(padded) if transcript else None
        return Voice(
            speaker=speaker,
            codes=codes,
            transcript=transcript,
            codec=codec_fingerprint(self._model) if transcript else "",
            speaker_encoder=speaker_fingerprint(self._model),
            notes=notes + self.notes,
        )

    def encode_codes(self, samples: NDArray[np.float32]) -> NDArray[np.int32]:
        """samples [n] at 24 kHz -> codes [ceil(n / 1920), 16]. Raises OptionError without a codec encoder."""
        if self._model.encoder is None:
            raise OptionError(
                f"{self._model.file.path.name} has no codec encoder, because llama.cpp's converter leaves it out",
                hint="convert the checkpoint with qwen3tts convert, or clone with the speaker vector only "
                "(`Voice.without_codes`)",
            )
        return self._computed(self._encode_codes, samples)

    def _computed(self, function: Callable[[NDArray[np.float32]], Result], values: NDArray[np.float32]) -> Result:
        with self._turn, ThreadPoolExecutor(1, "qwen3tts-voice") as thread:
            try:
                return thread.submit(function, values).result()
            except DeviceError as error:
                self.placed = f"{CPU.name} ({error.message})"
                self.notes = (Note(f"the CPU encodes clips: {error.message}"),)
            self._speaker_encoder = self._codec_encoder = None
            self._device, self._started = CPU, None
            return thread.submit(function, values).result()

    @property
    def _backend(self) -> Backend:
        if self._started is None:
            self._started = Backend(self._n_threads, device=self._device)
        return self._started

    def _encode_codes(self, samples: NDArray[np.float32]) -> NDArray[np.int32]:
        if self._codec_encoder is None:
            self._codec_encoder = CodecEncoder(self._model, self._backend)
        return self._codec_encoder.encode(samples)

    def speaker_vector(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """samples [n] at 24 kHz -> [hidden], without any check of the clip. Raises OptionError without an encoder."""
        if self._model.speaker_encoder is None:
            raise OptionError(
                "this model cannot clone: it has no speaker encoder",
                hint="use a Base model, or speak with a preset (`Voice.preset`) of a CustomVoice model, or with a "
                "description (`Voice.design`) for a VoiceDesign model",
            )
        mel = log_mel(samples, self._model.speaker_encoder.n_mels)
        return self._computed(self._encode_mel, mel)

    def _encode_mel(self, mel: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._speaker_encoder is None:
            self._speaker_encoder = SpeakerEncoder(self._model, self._backend)
        return self._speaker_encoder.encode(mel)


def codec_fingerprint(model: MmprojFile) -> str:
    """The same for every pair with this codec, whatever its size and type: of the semantic codebook, as F16.

    Empty where that is quantized, as llama.cpp's converter does at q8_0: then nothing can be concluded.
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
