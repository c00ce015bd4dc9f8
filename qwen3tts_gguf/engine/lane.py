"""One speech inside the engine: all it needs for its next frame, and nothing that belongs to another speech.

    waiting ──first read──> prompt, slice by slice ──> frames, one per step ──> last frames decoded ──> ending
                              ^ no text yet ^            ^ no text yet ^

A lane has no lock and no thread. Its talker sequence and codec state are touched by the engine's threads alone; the
reader sees nothing but the mailbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..nets.codec_decoder import CodecState
from ..nets.sampling import Sampling, TalkerSampler
from ..nets.talker import TalkerSequence
from ..speech.live_prompt import LivePrompt
from ..speech.prompt import Prompt
from ..speech.runaway import SpeechWatch
from ..voice.voice import Voice
from .mailbox import Ending, Mailbox

__all__ = ["Lane", "Request", "Timings"]


@dataclass(frozen=True)
class Request:
    """What to speak, fixed before the first frame. The codes of a speech depend on this and on the files alone."""

    prompt: Prompt | LivePrompt
    talker_sampling: Sampling
    predictor_sampling: Sampling
    seed: int
    max_frames: int
    end_of_speech: int
    """The codec token that ends a speech."""
    suppressed: Sequence[int]
    """Codec tokens that are never chosen."""
    reference: Voice | None = None
    """The voice whose codes the codec continues; None starts it from silence."""
    budget_by_text: bool = False
    """Whether a text that is still arriving lowers `max_frames` once all of it is there."""
    endless: bool = False
    """Suppress the end of speech and every stop but the budget: for measuring a given number of frames."""


@dataclass
class Timings:
    """Where a speech's time went, in seconds.

    Frame i took `talker[i]` (0 for the first, whose talker step is part of the prompt), `predictor[i]` and `codec[i]`.
    A step or a codec call is counted whole for each lane that shared it.
    """

    prompt_positions: int = 0
    prompt_reused: int = 0
    """Positions of the prompt that were known from an earlier speech in the same voice."""
    prompt: float = 0.0
    talker: list[float] = field(default_factory=list)
    predictor: list[float] = field(default_factory=list)
    codec: list[float] = field(default_factory=list)


class Lane:
    """The state of one speech. Made by `Engine.open`; the engine alone changes it, `cancel` apart."""

    def __init__(self, request: Request, on_change: Callable[[], None]) -> None:
        self.request = request
        self.mailbox = Mailbox(on_change)
        self.timings = Timings()
        self.frames_at_once = 1
        """How many frames the codec may wait for: more is less work, and a later sound."""
        self.rng = np.random.default_rng(request.seed)
        self._sampler = TalkerSampler(
            request.talker_sampling, self.rng, end_of_speech=request.end_of_speech, suppressed=request.suppressed
        )
        if request.endless:
            self._sampler.never_end()
        self.watch = None if request.endless else SpeechWatch()
        self.sequence: TalkerSequence | None = None
        self.codec_state: CodecState | None = None
        self.slices: deque[slice] = deque()
        """Of the prompt, still to go in before its last row."""
        self.n_frames = 0
        self._embedding: NDArray[np.float32] | None = None
        """The last frame's, the codec side of the talker's next input."""
        self.undecoded: list[NDArray[np.int32]] = []
        """Codes [16] of frames that wait for the codec."""
        self.ending: Ending | None = None
        """Set when no frame comes after those in `undecoded`."""
        self._is_held = False
        self._on_change = on_change
        if isinstance(request.prompt, LivePrompt):
            request.prompt.listen(self._notice_text, lambda: self.is_over or self.ending is not None)

    @property
    def is_over(self) -> bool:
        """Whether no reader waits for more of it: cancelled, failed, or stopped by the watch."""
        return self.mailbox.ending is not None

    @property
    def is_due(self) -> bool:
        """Whether the engine should work on it now: not while it is held, its reader is far behind, or its text is not
        there."""
        if self.is_over:
            return True
        return (
            not self._is_held
            and not self.mailbox.is_full
            and (bool(self.slices) or self.request.prompt.reaches(self.n_frames))
        )

    @property
    def max_frames(self) -> int:
        """The budget as it is now."""
        most, prompt = self.request.max_frames, self.request.prompt
        if self.request.budget_by_text and isinstance(prompt, LivePrompt) and prompt.budget is not None:
            return min(most, prompt.budget)
        return most

    @property
    def next_row(self) -> NDArray[np.float32]:
        """The talker's next input [hidden], once the slices are in and its text is there."""
        prompt = self.request.prompt
        if self._embedding is None:
            return np.asarray(prompt.embeddings[-1])
        return self._embedding + prompt.text_row(self.n_frames - 1)

    def choose(self, logits: NDArray[np.float32]) -> int | None:
        """The talker's logits -> code 0 of the next frame, or None when the speech is over (then `ending` is set)."""
        code0 = self._sampler.choose(logits)
        if code0 == self.request.end_of_speech:
            self.ending = Ending(ended=True)
        elif self.n_frames >= self.max_frames:
            self.ending = Ending(runaway=f"its budget of {self.n_frames} frames is used up")
        return None if self.ending else code0

    def add(self, codes: NDArray[np.int32], embedding: NDArray[np.float32]) -> None:
        """A frame: its codes [16], and their summed embeddings [hidden] for the talker."""
        self.undecoded.append(codes)
        self._embedding = embedding
        self.n_frames += 1

    def hold(self, held: bool) -> None:
        """Make no frames while it is held; from any thread."""
        self._is_held = held
        self._on_change()

    def cancel(self) -> None:
        """End the speech now, from any thread: its reader gets nothing more, its place is free within a frame."""
        self.mailbox.end(Ending(cancelled=True))
        self._on_change()

    def _notice_text(self, error: BaseException | None) -> None:
        """There is more text, or an error in its place; called by the thread that feeds it."""
        if error is not None:
            self.mailbox.end(Ending(error=error))
        self._on_change()
