"""Text in, audio out: the page to read first.

    text ──tokenizer──> ids ──prompt──> embeddings ──talker──> hidden, logits ──sampler──> code 0
                                            ^                                                 │
                        text row + sum of the frame's 16 code embeddings <──code predictor────┤ codes 1..15
                                                                                              v
                                                                        codec decoder ──> 1920 samples

One turn of that loop is a frame, 80 ms of speech. It ends when code 0 says so. A speech that comes to no end is
stopped, and begun anew with another seed where nobody has heard it yet.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from .engine.threads import default_threads, shares
from .errors import ModelFileError, NoEndOfSpeech, Note, OptionError, TextError
from .ggml.device import Backend
from .model import nano
from .model.files import ModelFiles
from .model.footprint import require_room
from .model.sampling_defaults import GenerationDefaults
from .model.schema import N_CODEBOOKS, SAMPLE_RATE_HZ
from .model.tokenizer import Tokenizer
from .model.vocabulary import Vocabulary
from .nets.code_predictor import CodePredictor
from .nets.codec_decoder import CodecDecoder, CodecState
from .nets.codes import check_codes
from .nets.sampling import Sampling, TalkerSampler, next_seed
from .nets.talker import Talker
from .speech.options import SpeechOptions
from .speech.prompt import Prompt, PromptBuilder, Reference
from .speech.runaway import SpeechWatch, frame_budget, n_spelled
from .speech.text import prepare_text
from .voice.compatibility import Compatibility, ResolvedVoice
from .voice.encoder import VoiceEncoder
from .voice.voice import Voice

Number = TypeVar("Number", int, float)

__all__ = ["TTS", "SpeechOptions", "Utterance"]


class TTS:
    """A model, loaded. Usable from several threads: their frames take turns, at the codec and at the other nets.

    path: the talker's .gguf or a folder with one pair. check_memory: refuse a model that plainly does not fit into what
    is free (memory.py). Raises ModelFileError, BackendError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mmproj: str | Path | None = None,
        n_threads: int | None = None,
        check_memory: bool = False,
    ) -> None:
        if n_threads is not None and n_threads < 1:
            raise OptionError(f"n_threads must be at least 1, not {n_threads}")
        files = ModelFiles(Path(path), Path(mmproj) if mmproj else None)
        if check_memory:
            require_room(files)
        n_threads = n_threads or default_threads()
        self.name = files.talker.name
        self.defaults: GenerationDefaults = files.talker.generation
        self._shares = shares(n_threads)
        # Each with a backend of its own: two graphs computed on one at a time crash, and threads listen, speak and
        # sound at the same time.
        self._predictor_backend, self._codec_backend = (
            Backend(n_threads, ("CPU_REPACK",)),
            Backend(n_threads, ("CPU_REPACK",)),
        )
        self.voice_encoder = VoiceEncoder(files.mmproj, Backend(n_threads))
        # llama.cpp reads its file meanwhile.
        self._talker = Talker(files.talker, n_threads)
        self.vocabulary = Vocabulary(files.talker.file, files.talker.tokens)
        if self.vocabulary.n_codes > files.mmproj.decoder.codebook_size:
            raise ModelFileError(
                f"{files.talker.file.path}: it may say {self.vocabulary.n_codes} codes, "
                f"the codec has {files.mmproj.decoder.codebook_size}"
            )
        tokenizer = Tokenizer(files.talker.file, files.talker.tokens)
        self._compatibility = Compatibility(files, self.vocabulary)
        self.kind = self._compatibility.kind
        """"base", "custom_voice" or "voice_design"."""
        self.codec_fingerprint = self._compatibility.codec
        self._predictor = CodePredictor(files.mmproj, self._predictor_backend)
        self._decoder = CodecDecoder(files.mmproj, self._codec_backend)
        self._talker.wait_until_loaded()
        self._prompts = PromptBuilder(self._talker, tokenizer, self.vocabulary)
        self._heard: WeakKeyDictionary[Voice, CodecState] = WeakKeyDictionary()
        self._turn = threading.Lock()  # of talker and predictor
        self._codec_turn = threading.Lock()
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="codec")

    sample_rate_hz = SAMPLE_RATE_HZ

    def stream(
        self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> Iterator[NDArray[np.float32]]:
        """Samples at 24 kHz in [-1, 1] as they are made, 1920 a frame.

        Raises TextError, OptionError; NoEndOfSpeech after the last frame when speech came to no end. What was handed
        out cannot be taken back, so there are no retries.
        """
        with self.utter(text, voice, options) as utterance:
            yield from utterance
        utterance.require_end()

    def speak(
        self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> NDArray[np.float32]:
        """The whole speech: samples [n] at 24 kHz in [-1, 1].

        Raises TextError, OptionError; NoEndOfSpeech when no attempt came to an end.
        """
        for utterance in self.attempts(text, voice, options):
            utterance.finish()
        utterance.require_end()
        return utterance.samples

    def attempts(
        self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()
    ) -> Iterator[Utterance]:
        """Utterances of one text, until one ends or `options.retries` are used up; hear each out before the next.

        The first has the seed of the options, each other one made from the seed before. Raises TextError, OptionError.
        """
        chance = any(sampling.draws for sampling in self._sampling(options))  # without it, all would be the same
        for _ in range(1 + options.retries if chance else 1):
            with self.utter(text, voice, options) as utterance:
                yield utterance
            if utterance.ended:
                return
            options = replace(options, seed=next_seed(utterance.seed))

    def utter(self, text: str, voice: Voice | None = None, options: SpeechOptions = SpeechOptions()) -> Utterance:
        """One attempt to iterate over, for who wants codes, seed or the way it ended besides the samples.

        Raises TextError, OptionError.
        """
        text, notes = prepare_text(text)
        part = self._compatibility.resolve(voice, options.language)
        notes = (*(voice.notes if voice else ()), *notes, *part.notes)
        if self.name.lower() == nano.NAME:
            notes += nano.word_notes(text)
        prompt = self._prompts.build(
            text,
            language=part.language,
            speaker=part.speaker if part.preset is None else self._talker.embed_codec([part.preset])[0],
            instruct=part.instruct,
            reference=self._reference(part),
            layout=options.layout,
        )
        budget = frame_budget(prompt.n_text_tokens, n_spelled(text))
        room = self._talker.config.context_length - len(prompt.embeddings)
        if room < 1:
            raise TextError(f"the text is too long for this model: {prompt.n_text_tokens} tokens")
        if options.max_frames is not None and options.max_frames > room:
            raise OptionError(f"max_frames must be at most {room} with this text and voice, not {options.max_frames}")
        max_frames = options.max_frames or min(budget, self.defaults.max_new_tokens, room)
        codec_state = self._codec_state(voice, part)
        with self._turn:  # contexts are handed out one at a time
            return Utterance(self, prompt, codec_state, replace(options, max_frames=max_frames), notes)

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float32]:
        """codes [frames, 16] -> samples [frames * 1920]. Raises CodesError."""
        return self._sounded(codes, self._decoder.new_state(), self._shares.all)

    def _sounded(self, codes: NDArray[np.integer], state: CodecState, n_threads: int) -> NDArray[np.float32]:
        """codes [frames, 16] -> samples [frames * 1920], going on from `state`."""
        with self._codec_turn:
            self._codec_backend.use_threads(n_threads)
            return self._decoder.decode(codes, state)

    def encode(self, samples: NDArray[np.float32]) -> NDArray[np.int32]:
        """samples [n] at 24 kHz -> codes [ceil(n / 1920), 16]. Raises AudioError; OptionError without an encoder."""
        return self.voice_encoder.encode_codes(samples)

    def _reference(self, part: ResolvedVoice) -> Reference | None:
        if part.codes is None or part.transcript is None:
            return None
        codes = check_codes(part.codes, self._decoder.config.codebook_size)
        return Reference(part.transcript, self._predictor.embed(codes))

    def _codec_state(self, voice: Voice | None, part: ResolvedVoice) -> CodecState:
        """The decoder's memory at the start: of the reference, if there is one, so that the onset follows from it."""
        if voice is None or part.codes is None:
            return self._decoder.new_state()
        with self._codec_turn:
            self._codec_backend.use_threads(self._shares.all)
            if voice not in self._heard:
                self._heard[voice] = self._decoder.heard(part.codes)
            return self._decoder.copied(self._heard[voice])

    def _sampling(self, options: SpeechOptions) -> tuple[Sampling, Sampling]:
        """The talker's and the predictor's: the user's wish, else the file's."""
        d = self.defaults
        talker = Sampling(
            draws=d.do_sample and not options.greedy,
            temperature=_first(options.temperature, d.temperature),
            top_k=_first(options.top_k, d.top_k),
            top_p=_first(options.top_p, d.top_p),
            repetition_penalty=_first(options.repetition_penalty, d.repetition_penalty),
        )
        predictor = Sampling(
            draws=d.subtalker_dosample and not options.greedy,
            temperature=_first(options.sub_temperature, d.subtalker_temperature),
            top_k=_first(options.sub_top_k, d.subtalker_top_k),
            top_p=_first(options.sub_top_p, d.subtalker_top_p),
            repetition_penalty=_first(options.sub_repetition_penalty, 1.0),
        )
        return talker, predictor


class Utterance:
    """All state of one speech: talker sequence, codec memory, random numbers, text left. Iterate to hear it, once.

    Use as a context manager, so that its memory goes back to the model when it is over.
    """

    def __init__(
        self,
        tts: TTS,
        prompt: Prompt,
        codec_state: CodecState,
        options: SpeechOptions,
        notes: tuple[Note, ...] = (),
    ) -> None:
        assert options.max_frames is not None
        self.seed = options.seed if options.seed is not None else secrets.randbits(32)
        self.max_frames = options.max_frames
        self.notes = notes
        self.ended = False
        """Whether the model said that the speech is over."""
        self.runaway: str | None = None
        """Why it was stopped, in words, when the model did not say so."""
        self._tts, self._prompt = tts, prompt
        self._outcome: tuple[bool, str | None] = False, None  # `ended` and `runaway` once all that was said is heard
        self._frames: list[NDArray[np.int32]] = []
        self._samples: list[NDArray[np.float32]] = []
        self._watch: SpeechWatch | None = SpeechWatch()
        self._rng = np.random.default_rng(self.seed)
        talker_sampling, self._predictor_sampling = tts._sampling(options)
        vocabulary = tts.vocabulary
        self._sampler = TalkerSampler(
            talker_sampling, self._rng, end_of_speech=vocabulary.codec.eos, suppressed=vocabulary.suppressed
        )
        self._codec_state = codec_state
        self._sounding: Future[NDArray[np.float32]] | None = None
        self._sequence = tts._talker.new_sequence(len(prompt.embeddings) + self.max_frames)

    @property
    def codes(self) -> NDArray[np.int32]:
        """What was said so far [frames, 16]."""
        return np.array(self._frames, np.int32).reshape(-1, N_CODEBOOKS)

    @property
    def samples(self) -> NDArray[np.float32]:
        """What was heard so far [n], in [-1, 1] at 24 kHz."""
        return np.concatenate([np.zeros(0, np.float32), *self._samples])

    @property
    def seconds(self) -> float:
        """Length of what was said so far."""
        return len(self._frames) * self._tts._decoder.samples_per_frame / SAMPLE_RATE_HZ

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Each frame's samples as soon as they are there [1920]."""
        return self._sounded(1)

    def in_parts(self) -> Iterator[NDArray[np.float32]]:
        """The same samples a few frames at a time, which is less work for the decoder."""
        return self._sounded(self._tts._decoder.frames_at_once)

    def finish(self) -> None:
        """Go on to the end, or to where it is stopped."""
        for _ in self.in_parts():
            pass

    def _said(self) -> Iterator[NDArray[np.int32]]:
        """Codes [16], frame by frame, to the end of speech or of the budget."""
        tts = self._tts
        with tts._turn:
            prepared = tts._beside.submit(tts._predictor.prepare, self._predictor_sampling)
            self._sequence.use_threads(tts._shares.all)
            out = self._sequence.forward(self._prompt.embeddings, self._prompt.n_shared)
            prepared.result()
        for i in count():
            with tts._turn:
                code0 = self._sampler.choose(out.logits)
                if code0 == tts.vocabulary.codec.eos:
                    self._outcome = True, None
                    return
                if i == self.max_frames:
                    self._outcome = False, f"its budget of {self.max_frames} frames is used up"
                    return
                frame = tts._predictor.predict(
                    out.hidden,
                    code0,
                    self._predictor_sampling,
                    self._rng,
                    before_part=lambda: tts._predictor_backend.use_threads(self._n_threads()),
                )
            yield frame.codes
            with tts._turn:
                self._sequence.use_threads(self._n_threads())
                out = self._sequence.forward((frame.embedding + self._prompt.text_row(i))[None])

    def _n_threads(self) -> int:
        """Of talker and predictor: all, unless the codec works meanwhile."""
        sounding = self._sounding is not None and not self._sounding.done()
        return self._tts._shares.language if sounding else self._tts._shares.all

    def _sounded(self, n_frames: int) -> Iterator[NDArray[np.float32]]:
        """Samples of so many frames at a time, until nothing more is said or what is heard no longer is speech.

        Where the codec works beside the others, these say the next frames meanwhile; but a first frame by itself is
        wanted soonest, so nothing else is done then.
        """
        tts, said = self._tts, self._said()
        frames, side_by_side = list(islice(said, n_frames)), tts._shares.side_by_side and n_frames > 1
        while frames:
            ahead, codes = None, np.array(frames)
            if side_by_side:
                self._sounding = tts._beside.submit(tts._sounded, codes, self._codec_state, tts._shares.codec)
                ahead = list(islice(said, n_frames))
                samples = self._sounding.result()
            else:
                samples = tts._sounded(codes, self._codec_state, tts._shares.all)
            complaint = self._heard(frames, samples.reshape(len(frames), -1))
            yield self._samples[-1].copy()  # whoever gets them may change them
            if complaint:  # what comes after it was never said
                self.runaway = complaint
                return
            frames, side_by_side = list(islice(said, n_frames)) if ahead is None else ahead, tts._shares.side_by_side
        self.ended, self.runaway = self._outcome

    def _heard(self, frames: list[NDArray[np.int32]], samples: NDArray[np.float32]) -> str | None:
        """Keep frames and their samples [n, 1920], up to one that no longer is speech -> why it is not"""
        complaint, n = None, 0
        while n < len(frames) and not complaint:
            complaint = self._watch.hear(int(frames[n][0]), samples[n]) if self._watch else None
            n += 1
        self._frames += frames[:n]
        self._samples.append(samples[:n].reshape(-1))
        return complaint

    def require_end(self) -> None:
        """Raises NoEndOfSpeech, with all that was said, unless the model said that the speech is over."""
        if not self.ended:
            raise NoEndOfSpeech(
                f"no end of speech after {self.seconds:.1f} s with seed {self.seed}: "
                f"{self.runaway or 'nobody went on'}; another seed, other words or more max_frames may help",
                self.samples,
                self.codes,
                self.seed,
            )

    def never_end(self) -> None:
        """Bar the end of speech and all that stops a speech but its budget: for measuring a given number of frames."""
        self._sampler.never_end()
        self._watch = None

    def close(self) -> None:
        """Give the memory back; codes and seed stay."""
        self._sequence.close()

    def __enter__(self) -> Utterance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first(wish: Number | None, default: Number) -> Number:
    return default if wish is None else wish
