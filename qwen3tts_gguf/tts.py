"""Text in, speech out: the page to read first.

    text ──tokenizer──> ids ──prompt──> embeddings ──talker──> hidden, logits ──sampler──> code 0
                                            ^                                                 │
                        text row + sum of the frame's 16 code embeddings <──code predictor────┤ codes 1..15
                                                                                              v
                                                                        codec decoder ──> 1920 samples

One turn of that loop is a frame, 80 ms of speech. This file is the front door: it turns text, voice and options into a
`Request`, and hands it to the engine (engine/engine.py), which runs the loop for one or several speeches at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from .engine.engine import Engine
from .engine.lane import Request
from .engine.placement import place
from .engine.plan import Plan
from .engine.utterance import Utterance
from .errors import ModelFileError, Note, OptionError, TextError
from .freed_memory import return_freed_memory
from .model import nano
from .model.files import ModelFiles
from .model.footprint import require_room, require_room_for_text
from .model.sampling_defaults import GenerationDefaults
from .model.schema import SAMPLE_RATE_HZ
from .model.tokenizer import Tokenizer
from .model.vocabulary import Vocabulary
from .nets.codes import check_codes
from .nets.sampling import next_seed
from .speech.feeding import fed_by_thread, fed_in_loop
from .speech.live_prompt import LivePrompt
from .speech.live_text import LiveText
from .speech.options import SpeechOptions
from .speech.prompt import Prompt, PromptBuilder, Reference
from .speech.runaway import frame_budget, n_spelled
from .speech.text import prepare_text
from .voice.compatibility import BASE, Compatibility
from .voice.encoder import VoiceEncoder
from .voice.shipped import ShippedVoice, ShippedVoices
from .voice.voice import Voice

__all__ = ["TTS", "LiveText", "SpeechOptions", "Utterance"]


class TTS:
    """A loaded model. Usable from any number of threads; several speeches are made at once or take turns.

        with TTS("models/Qwen3-TTS-12Hz-0.6B-Base-Q8_0.gguf") as tts:
            samples = tts.speak("Hello.")          # float32 [n] in [-1, 1] at 24 kHz

    Args:
        path: the talker's .gguf, a folder with one pair, or "nano", the model that comes with the package.
        mmproj: the other file of the pair, if it is not in the first one's folder under its usual name.
        n_threads: of the whole engine; None: the processors this process may use.
        n_lanes: how many speeches share a step of the engine. More may be open; they take turns.
        amx: "auto" uses AMX where a trial in a child process shows that this build of ggml survives it; "on" and "rows"
            use it untried, "off" never does.
        codec_type: how the codec computes: "f16" or "f32" (as the file has it, nearly alike), or "q8_0", faster with
            AMX and less exact (docs/quantization.md). Empty: what suits the machine, never "q8_0".
        device: "cpu", which touches no GPU; "gpu", or a device by its name, as `devices` lists them; "auto", a GPU with
            room for the model, or else the CPU; "talker=gpu,codec=cpu" places single nets, for measuring.
        plan: entries of the plan to change, for measuring (engine/plan.py).
        check_memory: refuse a model that plainly does not fit into free memory (model/footprint.py).

    Raises ModelFileError, OptionError, BackendError; DeviceError where a device has no memory for the model.
    """

    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(
        self,
        path: str | Path,
        *,
        mmproj: str | Path | None = None,
        n_threads: int | None = None,
        n_lanes: int | Literal["auto"] = 1,
        amx: str = "auto",
        codec_type: str = "",
        device: str = "cpu",
        plan: str = "",
        check_memory: bool = False,
    ) -> None:
        if n_threads is not None and n_threads < 1:
            raise OptionError(f"n_threads must be at least 1, not {n_threads}")
        if n_lanes != "auto" and n_lanes < 1:
            raise OptionError(f'n_lanes must be at least 1, or "auto", not {n_lanes}')
        files = ModelFiles(nano.resolved(Path(path)), Path(mmproj) if mmproj else None)
        self._check_memory = check_memory
        self._files = files
        if check_memory:
            require_room(files)
        overrides = ",".join(filter(None, (codec_type and f"codec={codec_type}", plan)))
        self.plan = Plan.for_this_machine(n_threads, amx=amx, overrides=overrides)
        self.name = files.talker.name
        self.defaults: GenerationDefaults = files.talker.generation
        placement = place(device, files, check_memory=check_memory)
        self.voice_encoder = VoiceEncoder(files.mmproj, self.plan.threads.all, placement.devices["encoders"])
        lanes = self.plan.lanes_worth_it if n_lanes == "auto" else n_lanes
        self.engine = Engine(files, self.plan, placement, lanes)
        self._close = finalize(self, self.engine.close)
        self.vocabulary = Vocabulary(files.talker.file, files.talker.tokens)  # the engine loads its nets meanwhile
        tokenizer = Tokenizer(files.talker.file, files.talker.tokens)
        self._compatibility = Compatibility(files, self.vocabulary)
        self.kind = self._compatibility.kind
        """"base", "custom_voice" or "voice_design"."""
        self.follows_instructions = self._compatibility.follows_instructions
        """Whether `Voice.instruct` is taken: not by Base models, nor by the 0.6B CustomVoice."""
        self.codec_fingerprint = self._compatibility.codec
        self._shipped = ShippedVoices(files, self.voice_encoder, can_clone=self.kind == BASE)
        self.default_voice: Voice | None = self._shipped.default
        """Speaks where no voice is given; may be set. None lets the model choose, as `Voice()` does for one speech."""
        self.engine.wait_until_loaded()
        if self.vocabulary.n_codes > files.mmproj.decoder.codebook_size:
            raise ModelFileError(
                f"{files.talker.file.path}: it has {self.vocabulary.n_codes} codes, "
                f"but its codec has {files.mmproj.decoder.codebook_size}"
            )
        self._prompts = PromptBuilder(self.engine.talker, tokenizer, self.vocabulary)
        return_freed_memory()

    @property
    def placement(self) -> dict[str, str]:
        """Net -> the device that computes it, and why it is the CPU where another was asked for."""
        entries = self.engine.placement.entries()
        return {**entries, "encoders": self.voice_encoder.placed}

    @property
    def notes(self) -> tuple[Note, ...]:
        """Why the model is not where it was to be, if it is not."""
        return self.engine.placement.notes + self.voice_encoder.notes

    @property
    def files(self) -> tuple[Path, Path]:
        """The talker file and the mmproj file."""
        return self._files.talker.file.path, self._files.mmproj.file.path

    # -- voices --------------------------------------------------------------------------------------------------------

    @property
    def shipped_voices(self) -> Mapping[str, ShippedVoice]:
        """The voices that come with the package for this model, by name; empty for one that cannot clone."""
        return self._shipped.table

    def resolve(self, voice: Voice | None) -> Voice:
        """The voice that is spoken with: for None the default voice, and of a shipped one its speaker vector and codes.

        These are encoded when the first speech needs them, and kept in the user's cache folder. Raises VoiceError.
        """
        return self._shipped.resolve(voice or self.default_voice or Voice())

    # -- speaking ------------------------------------------------------------------------------------------------------

    def speak(
        self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> NDArray[np.float32]:
        """The whole speech: samples float32 [n] at 24 kHz in [-1, 1].

        A speech that does not end is retried with a new seed, `options.retries` times. Raises TextError, OptionError;
        NoEndOfSpeech when no attempt ended.
        """
        for utterance in self.attempts(text, voice, options):
            utterance.finish()
        utterance.require_end()
        return utterance.samples

    def stream(
        self, text: str | Iterable[str], voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> Iterator[NDArray[np.float32]]:
        """Samples as they are made: float32 [1920] per frame, at 24 kHz in [-1, 1].

        text: may still arrive, as an iterable of strings cut anywhere, which a thread reads (docs/live-text.md).

        Closing the iterator cancels the speech. Raises TextError, OptionError; NoEndOfSpeech after the last frame if
        the speech did not end: what was handed out cannot be taken back, so nothing is retried. What the iterable
        raises is raised here.
        """
        if isinstance(text, str):
            with self.utter(text, voice, options) as utterance:
                yield from utterance
        else:
            live = LiveText()
            with self.utter(live, voice, options) as utterance, fed_by_thread(live, text):
                yield from utterance
        utterance.require_end()

    async def astream(
        self,
        text: str | Iterable[str] | AsyncIterable[str],
        voice: Voice | None = None,
        options: SpeechOptions = SpeechOptions(),
    ) -> AsyncIterator[NDArray[np.float32]]:
        """`stream` for an event loop: never blocks it, and leaving the loop cancels the speech.

        text: may still arrive, as an iterable or an async one; the latter is read by a task of the loop.

        async for samples in tts.astream("Hello."):
            await connection.send(samples)
        """
        if isinstance(text, str):
            with await asyncio.to_thread(self.utter, text, voice, options) as utterance:
                async for samples in utterance:
                    yield samples
        else:
            live = LiveText()
            with await asyncio.to_thread(self.utter, live, voice, options) as utterance:
                async with fed_in_loop(live, text):
                    async for samples in utterance:
                        yield samples
        utterance.require_end()

    def attempts(
        self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> Iterator[Utterance]:
        """Utterances of one text until one ends or `options.retries` are used up; read each before you take the next.

        The first has the seed of the options, each other one a seed made from the one before. Raises TextError,
        OptionError.
        """
        draws = any(sampling.draws for sampling in options.sampling(self.defaults))  # otherwise all would be equal
        for _ in range(1 + options.retries if draws else 1):
            with self.utter(text, voice, options) as utterance:
                yield utterance
            if utterance.ended or utterance.cancelled:
                return
            options = replace(options, seed=next_seed(utterance.seed))

    def utter(
        self, text: str | LiveText, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> Utterance:
        """One attempt, for callers who want codes, seed, notes or how it ended, besides the samples.

        text: may still arrive, as a `LiveText`; it is spoken in the stepwise layout. Nothing is computed before the
        first read. Raises TextError, OptionError, UsageError.
        """
        request, notes = self._prepared(text, voice, options)
        return Utterance(self.engine, request, notes=notes, owner=self)

    def n_tokens(self, text: str) -> int:
        """How many tokens the talker takes for a text. Raises TextError for text that is not valid Unicode."""
        return self._prompts.n_tokens(text)

    def request(self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()) -> Request:
        """What the engine is given: the prompt, the sampling, the budget. Raises TextError, OptionError."""
        return self._prepared(text, voice, options)[0]

    def _prepared(
        self, text: str | LiveText, voice: Voice | None, options: SpeechOptions
    ) -> tuple[Request, tuple[Note, ...]]:
        if voice is not None and not isinstance(voice, Voice):
            raise OptionError(
                f"a voice must be a Voice, not {voice!r}",
                hint="Voice.load reads a saved voice, Voice.from_audio makes one from a clip",
            )
        text_notes: tuple[Note, ...] = ()
        if isinstance(text, str):
            text, text_notes = prepare_text(text)
            if self.name.lower() == nano.NAME:
                text_notes += nano.word_notes(text)
        voice = self.resolve(self._live_voice(voice, options) if isinstance(text, LiveText) else voice)
        resolved = self._compatibility.resolve(voice, options.language)
        notes = (*voice.notes, *text_notes, *resolved.notes)
        preset = None if resolved.preset is None else self.engine.talker.embed_codec([resolved.preset])[0]
        reference = None
        if resolved.codes is not None and resolved.transcript is not None:
            codes = check_codes(resolved.codes, self._files.mmproj.decoder.codebook_size)
            reference = Reference(resolved.transcript, self.engine.predictor.embed(codes))
        speaker = resolved.speaker if preset is None else preset
        voice_rows: Any = {"language": resolved.language, "speaker": speaker, "instruct": resolved.instruct}
        prompt: Prompt | LivePrompt
        if isinstance(text, LiveText):
            prompt = self._prompts.live(text, reference=reference, **voice_rows)
            budget = self.defaults.max_new_tokens
        else:
            prompt = self._prompts.build(text, reference=reference, layout=options.layout, **voice_rows)
            budget = min(frame_budget(prompt.n_text_tokens, n_spelled(text)), self.defaults.max_new_tokens)
        room = self._files.talker.config.context_length - prompt.n_rows
        if room < 1:
            raise TextError(f"the text is too long for this model: {prompt.n_text_tokens} tokens")
        if options.max_frames is not None and options.max_frames > room:
            raise OptionError(f"max_frames must be at most {room} with this text and voice, not {options.max_frames}")
        if self._check_memory:
            require_room_for_text(self._files, prompt.n_rows)
        talker_sampling, predictor_sampling = options.sampling(self.defaults)
        request = Request(
            prompt=prompt,
            talker_sampling=talker_sampling,
            predictor_sampling=predictor_sampling,
            seed=secrets.randbits(32) if options.seed is None else options.seed,
            max_frames=options.max_frames or min(budget, room),
            budget_by_text=options.max_frames is None,
            end_of_speech=self.vocabulary.codec.eos,
            suppressed=self.vocabulary.suppressed,
            reference=voice if reference is not None else None,
            endless=options.endless,
        )
        return request, notes

    def _live_voice(self, voice: Voice | None, options: SpeechOptions) -> Voice | None:
        """Of a text that is still arriving: the speaker vector alone, where there is one and nothing else is asked."""
        voice = voice or self.default_voice
        has_vector = voice is not None and (voice.speaker is not None or voice.shipped_name is not None)
        return voice.without_codes() if voice and has_vector and not options.live_in_context else voice

    # -- codes and samples ---------------------------------------------------------------------------------------------

    def decode(self, codes: NDArray[np.integer], voice: Voice | None = None) -> NDArray[np.float32]:
        """codes [frames, 16] -> samples [frames * 1920].

        voice: that of the speech, if the codes are of one: cloned from a clip with its transcript, a speech sounds as
        if the clip came before it. None: nothing came before. Raises CodesError, VoiceError.
        """
        return self.engine.decode(codes, None if voice is None else self._clip_before(self.resolve(voice)))

    def _clip_before(self, voice: Voice) -> Voice | None:
        """The voice, if the codec goes on from its clip."""
        resolved = self._compatibility.resolve(voice, None)
        return None if resolved.codes is None or resolved.transcript is None else voice

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.int32]:
        """samples [n] at 24 kHz -> codes [ceil(n / 1920), 16]. Raises AudioError; OptionError without an encoder."""
        return self.voice_encoder.encode_codes(samples)

    # -- closing -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all speeches, stop the engine's threads, free the model. Closing twice is fine; speaking is over."""
        self._close()

    def __enter__(self) -> TTS:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
