"""The engine: the nets, the thread that works them, and the speeches ("lanes") they work on.

    callers ──open──> lanes ──┐                                        ┌──> mailboxes ──> readers
                              v                                        │
    engine thread:  [one slice of a prompt]  talker ─ code 0 ─ predictor ──> codec thread
                    └──────────────── one step: a frame for each lane that is due ───────────────┘

One thread makes all native calls of talker and code predictor, and those of the codec that have the machine to
themselves; one more decodes while talker and predictor make the next frame (codec_stage.py). Nobody else enters the
nets: every thread that computes with ggml gets a team of OpenMP threads of its own, and a lock around a prompt would
stop everybody.

Up to `n_lanes` speeches share a step. More may be open: they take turns, frame by frame. A speech depends on
its `Request` alone, never on the others (nets/widths.py says how products are shared without a bit's difference).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceError, UsageError
from ..ggml.device import Backend
from ..ggml.devices import Device
from ..ggml.library import forward_log
from ..model.files import ModelFiles
from ..model.schema import N_CODEBOOKS
from ..nets.code_predictor import CodePredictor
from ..nets.codec_decoder import CodecDecoder
from ..nets.sampling import Sampling
from ..nets.talker import Talker
from ..speech.options import SpeechOptions
from ..voice.voice import Voice
from .codec_stage import CodecStage, Due
from .lane import Lane, Request
from .mailbox import Ending
from .placement import Placement
from .plan import Plan

__all__ = ["Engine"]

Result = TypeVar("Result")

_THREAD_NAME = "qwen3tts"


class Engine:
    """A loaded model, speaking. Its methods may be called from any thread of the process that made it.

    n_lanes: how many speeches share a step. Raises ModelFileError, BackendError.
    """

    def __init__(self, files: ModelFiles, plan: Plan, placement: Placement, n_lanes: int = 1) -> None:
        self.plan, self.n_lanes = plan, n_lanes
        self.placement = placement
        """Once it is loaded: on which device each net is."""
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._lanes: list[Lane] = []  # open and read; whose turn it is stands first
        self._tasks: deque[Callable[[], None]] = deque()
        self._closing = False
        self._loaded: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(files,), name=_THREAD_NAME, daemon=True)
        self._thread.start()

    # -- for callers ---------------------------------------------------------------------------------------------------

    def wait_until_loaded(self) -> None:
        """Raises what loading raised."""
        self._loaded.result()

    @property
    def talker(self) -> Talker:
        """For looking up embeddings and its configuration; computing is for the engine's thread (`call`)."""
        return self._talker

    @property
    def predictor(self) -> CodePredictor:
        """The same. Raises UsageError after `close`."""
        self._require_usable()
        return self._predictor

    @property
    def decoder(self) -> CodecDecoder:
        """The same."""
        return self._codec.decoder

    def open(self, request: Request) -> Lane:
        """A lane for a speech; nothing is computed before `start`."""
        self._require_usable()
        return Lane(request, self._wake)

    def start(self, lane: Lane) -> None:
        """Work on a lane from now on, until it has ended or is cancelled."""
        with self._changed:
            self._require_usable()  # in the block: once `close` was called, lanes that are added are never computed
            self._lanes.append(lane)
            self._changed.notify_all()

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function on the engine's thread, between two steps, and wait for what it returns or raises."""
        done: Future[Result] = Future()

        def task() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        with self._changed:
            self._require_usable()
            self._tasks.append(task)
            self._changed.notify_all()
        return done.result()

    def decode(self, codes: NDArray[np.integer], reference: Voice | None = None) -> NDArray[np.float32]:
        """codes [frames, 16] -> samples [frames * 1920]; `reference` as in `Request`. Raises CodesError."""
        self._require_usable()
        codec, n = self._codec, self.plan.frames_at_once
        state = self.call(lambda: codec.new_state(reference))
        pieces = [codes[i : i + n] for i in range(0, max(1, len(codes)), n)]  # other speeches go on between them
        return np.concatenate([self.call(partial(codec.decode, state, piece)) for piece in pieces])

    def close(self) -> None:
        """End all speeches with an error, stop the threads, and free the nets. Closing twice is fine."""
        if os.getpid() != self._process:
            return  # the threads are the parent's
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not threading.current_thread().name.startswith(_THREAD_NAME):  # the garbage collector may run there
            self._thread.join()

    def _require_usable(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "the model was loaded before this process was forked, and threads do not survive a fork",
                hint="load the model in the child, or start processes with the method 'spawn'",
            )
        if self._closing:
            raise UsageError("the model is closed", hint="load it again")

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- the engine's thread -------------------------------------------------------------------------------------------

    def _run(self, files: ModelFiles) -> None:
        try:
            self._load(files)
        except BaseException as error:
            self._closing = True
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(None)
        reason: BaseException = UsageError("the model was closed while it was speaking")
        try:
            while (lanes := self._next_lanes()) is not None:
                self._step(lanes)
        except BaseException as unexpected:  # a fault of ours: no reader is left waiting
            reason = unexpected
            with self._changed:
                self._closing = True
            raise
        finally:
            self._free(reason)

    def _load(self, files: ModelFiles) -> None:
        forward_log()
        plan = self.plan
        self._talker = self._placed("talker", partial(self._new_talker, files))  # the CPU reads it meanwhile
        self._predictor, self._predictor_backend = self._placed("predictor", partial(self._new_predictor, files))
        decoder, codec_backend = self._placed("codec", partial(self._new_decoder, files))
        self._codec = CodecStage(decoder, codec_backend, plan.threads, f"{_THREAD_NAME}-codec", self._wake)
        self._talker.wait_until_loaded()

    def _placed(self, net: str, make: Callable[[Device], Result]) -> Result:
        """A net on the device it is to be on, or on the CPU where `Placement.moved` allows it."""
        device = self.placement.devices[net]
        try:
            return make(device)
        except DeviceError as error:
            self.placement = self.placement.moved(net, error)
        return make(self.placement.devices[net])

    def _new_talker(self, files: ModelFiles, device: Device) -> Talker:
        talker = Talker(files.talker, self.plan.threads.all, self.plan.talker, device)
        if not device.is_cpu:
            try:
                talker.wait_until_loaded()
            except BaseException:
                talker.close()
                raise
        return talker

    def _new_predictor(self, files: ModelFiles, device: Device) -> tuple[CodePredictor, Backend]:
        plan = self.plan
        backend = Backend(plan.threads.all, plan.predictor, device)
        predictor = CodePredictor(files.mmproj, backend, single_rows=plan.single_rows and device.is_cpu)
        if not device.is_cpu:  # find out now whether it can sort a whole codebook
            predictor.prepare(1, Sampling(top_k=0))
        predictor.prepare(1, SpeechOptions().sampling(files.talker.generation)[1])
        return predictor, backend

    def _new_decoder(self, files: ModelFiles, device: Device) -> tuple[CodecDecoder, Backend]:
        plan = self.plan
        backend = Backend(plan.threads.all, plan.codec_placements, device)
        return CodecDecoder(files.mmproj, backend, plan.codec_on(device)), backend

    def _next_lanes(self) -> list[Lane] | None:
        """The lanes that are due, in turn, once there is one; None when the engine is closing."""
        while True:
            with self._changed:
                while not (self._closing or self._tasks or any(lane.is_due for lane in self._lanes)):
                    self._changed.wait()
                if self._closing:
                    return None
                tasks, self._tasks = self._tasks, deque()
            for task in tasks:
                task()
            self._retire()
            if due := [lane for lane in self._lanes if lane.is_due]:
                return due

    def _retire(self, *, all_lanes: bool = False) -> None:
        """Free what lanes hold that are no longer read, or that have made their last frame."""
        for lane in list(self._lanes):
            if all_lanes or lane.is_over or lane.ending:
                if lane.sequence is not None:
                    lane.sequence.close()
                with self._changed:
                    self._lanes.remove(lane)

    def _step(self, lanes: list[Lane]) -> None:
        """One slice of the first prompt that is not in yet, and one frame for each of up to n_lanes lanes.

        While some speak, one new lane gets its memory, and its first slice in the next step: they wait for either.
        """
        is_anyone_speaking = any(lane.sequence is not None and not lane.slices and not lane.is_over for lane in lanes)
        new = [lane for lane in lanes if lane.sequence is None]
        for lane in new[:1] if is_anyone_speaking else new:
            self._attempt([lane], partial(self._begin, lane))
        prompts = [lane for lane in lanes if lane.slices and not (is_anyone_speaking and lane in new)]
        begun = [lane for lane in lanes if lane.sequence is not None]
        speaking = [lane for lane in begun if not lane.slices and not lane.is_over][: self.n_lanes]
        if prompts:
            self._attempt(prompts[:1], lambda: self._prefill(prompts[0]))
        if speaking:
            self._attempt(speaking, lambda: self._frame(speaking))
            with self._changed:  # one that had a turn goes to the end
                self._lanes.sort(key=lambda lane: lane in speaking)

    def _attempt(self, lanes: Sequence[Lane], work: Callable[[], None]) -> None:
        """Do some work for lanes; what goes wrong is their readers' to know."""
        try:
            work()
        except Exception as error:
            for lane in lanes:
                lane.mailbox.end(Ending(error=error))

    def _begin(self, lane: Lane) -> None:
        prompt = lane.request.prompt
        lane.sequence = self._talker.open()
        started = time.perf_counter()
        lane.slices.extend(lane.sequence.start(prompt.embeddings, prompt.n_shared))
        lane.timings.prompt_positions, lane.timings.prompt_reused = len(prompt.embeddings), lane.sequence.n_reused
        lane.timings.prompt += time.perf_counter() - started
        is_alone = all(other.sequence is None or other is lane for other in self._lanes)
        self._codec.prime(lane, in_parallel=not is_alone)

    def _prefill(self, lane: Lane) -> None:
        assert lane.sequence is not None
        started = time.perf_counter()
        self._talker.use_threads(self._n_threads())
        lane.sequence.prefill(lane.request.prompt.embeddings[lane.slices.popleft()])
        lane.timings.prompt += time.perf_counter() - started

    def _frame(self, lanes: list[Lane]) -> None:
        """A frame for each lane: talker, code 0, predictor; then hand the codes to the codec."""
        started = time.perf_counter()
        self._talker.use_threads(self._n_threads())
        outputs = self._talker.step([(lane.sequence, lane.next_row) for lane in lanes])  # type: ignore[misc]
        talked = time.perf_counter()
        going = []
        for lane, output in zip(lanes, outputs, strict=True):
            if output.problem is not None:
                lane.mailbox.end(Ending(error=output.problem))
            elif (code0 := lane.choose(output.logits)) is not None:
                going.append((lane, output.hidden, code0))
        if going:
            frames = self._predictor.predict(
                np.stack([hidden for _, hidden, _ in going]),
                np.array([code0 for _, _, code0 in going], np.int32),
                [(lane.request.predictor_sampling, lane.rng) for lane, _, _ in going],
                before_part=lambda: self._predictor_backend.use_threads(self._n_threads()),
            )
            predicted = time.perf_counter()
            for (lane, _, _), frame in zip(going, frames, strict=True):
                if frame.damage is not None:
                    lane.mailbox.end(Ending(error=frame.damage))
                    continue
                is_first = lane.n_frames == 0
                lane.timings.prompt += (talked - started) if is_first else 0.0
                lane.timings.talker.append(0.0 if is_first else talked - started)
                lane.timings.predictor.append(predicted - talked)
                lane.add(frame.codes, frame.embedding)
        self._hand_to_codec(lanes)

    def _hand_to_codec(self, lanes: Sequence[Lane]) -> None:
        """Have the codec decode what lanes have ready, in parallel with the next step where the plan says so.

        The first frame of a speech that is alone is decoded at once with all threads: somebody waits for its sound.
        """
        due = []
        for lane in lanes:
            at_once = max(1, lane.frames_at_once // len(lanes))
            if lane.ending or len(lane.undecoded) >= at_once:
                due.append(Due(lane, np.array(lane.undecoded, np.int32).reshape(-1, N_CODEBOOKS), lane.ending))
                lane.undecoded.clear()
        if due:
            is_first_and_alone = len(lanes) == 1 and lanes[0].n_frames == 1
            self._codec.decode_due(due, in_parallel=not is_first_and_alone)

    def _n_threads(self) -> int:
        """Threads of talker and predictor: all, unless the codec works in parallel."""
        return self.plan.threads.language if self._codec.is_busy else self.plan.threads.all

    def _free(self, reason: BaseException) -> None:
        for lane in self._lanes:
            lane.mailbox.end(Ending(error=reason))
        for task in self._tasks:
            task()
        self._retire(all_lanes=True)
        self._codec.close()
        self._talker.close()
        del self._predictor, self._codec, self._predictor_backend
