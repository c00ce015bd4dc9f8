"""The talker's input for a text that is still arriving: the stepwise layout of prompt.py, whose rows come one by one.

    text side    [reference's text]  token  token  token  token ...  tts_eos  tts_pad  tts_pad ...
    codec side   codec bos  [codes of the reference]  |  codes of frame 0, of frame 1, ...
                 these are the prompt                    one row per frame

A frame whose text row is not there yet is not made. Neither is it padded: the model has not seen a text with gaps.
Without a reference the prompt takes one row of text, and speech starts once there are four; in context it takes as many
as the reference has frames, most of them of the text to speak.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import TextError
from .live_text import LiveText, LiveTokens
from .runaway import frame_budget, n_spelled
from .text import clean_text, is_pronounceable, prepare_text

__all__ = ["LivePrompt"]

Rows = NDArray[np.float32]  # [n, hidden]

_FIRST_TOKENS = 4
"""Of the text, before speech starts: the first words are not spoken before it is seen how they go on."""


class LivePrompt:
    """A `Prompt` that grows. One thread feeds it (`LiveText`), the engine's reads it.

    head: what comes before the text. over: the codec side of the text's first rows, codec bos first. reference: the
    text side of the reference's words. end, pad: tts_eos and tts_pad [hidden]. embed: token ids to rows.
    n_room: positions of the model's context after the prompt.
    """

    def __init__(
        self,
        text: LiveText,
        tokens: LiveTokens,
        *,
        head: Rows,
        over: Rows,
        reference: Rows,
        end: NDArray[np.float32],
        pad: NDArray[np.float32],
        embed: Callable[[list[int]], Rows],
        n_room: int,
    ) -> None:
        self.text = text
        self._tokens, self._embed, self._n_room = tokens, embed, n_room
        self._head, self._over, self._end, self._pad = head, over, end, pad
        self._changed = threading.Lock()  # of the fields below
        self._rows = list(reference)
        self._n_reference = len(reference)
        self._n_tokens = 0
        self._has_words = False
        self._budget: int | None = None
        self._error: BaseException | None = None
        self._embeddings: Rows | None = None
        self._report: Callable[[BaseException | None], object] = lambda error: None
        self._is_over: Callable[[], bool] = lambda: False
        text.connect(self)

    # -- for the thread that feeds -------------------------------------------------------------------------------------

    def receive(self, piece: str) -> None:
        """A piece of the text, cut anywhere."""
        if not self.wants_more:
            return
        try:
            ids = self._tokens.feed(piece)
            self._has_words = self._has_words or is_pronounceable(clean_text(piece))
            self._add(ids)
        except TextError as error:
            self._fail(error)

    def receive_end(self, text: str, error: BaseException | None) -> None:
        """The whole text, as it ends, or what went wrong where it comes from."""
        if not self.wants_more:
            return
        if error is not None:
            self._fail(error)
            return
        try:
            text, _ = prepare_text(text)
            self._add(self._tokens.finish())
        except TextError as problem:
            self._fail(problem)
            return
        with self._changed:
            self._rows.append(self._end)
            self._budget = frame_budget(self._n_tokens, n_spelled(text))
        self._report(None)

    @property
    def wants_more(self) -> bool:
        """Whether more text would be spoken."""
        return self._error is None and not self._is_over()

    def _add(self, ids: list[int]) -> None:
        if not ids:
            return
        n_tokens = self._n_tokens + len(ids)
        if n_tokens >= self._n_room:
            raise TextError(f"the text is too long for this model: {n_tokens} tokens or more")
        rows = list(self._embed(ids))
        with self._changed:
            self._rows += rows
            self._n_tokens = n_tokens
        self._report(None)

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._report(error)

    # -- for the lane --------------------------------------------------------------------------------------------------

    def listen(self, report: Callable[[BaseException | None], object], is_over: Callable[[], bool]) -> None:
        """Have `report` called whenever there is more text, or with the error after which nothing comes. is_over:
        whether the speech takes no more of it."""
        self._report, self._is_over = report, is_over
        if self._error is not None:
            report(self._error)

    @property
    def n_rows(self) -> int:
        """Before the first frame."""
        return len(self._head) + len(self._over)

    def reaches(self, frame: int) -> bool:
        """Whether the talker's input for a frame is known."""
        n_rows = self._n_reference + _FIRST_TOKENS if frame == 0 else 0
        with self._changed:
            is_complete = self._budget is not None
            return is_complete or (self._has_words and len(self._rows) >= max(n_rows, len(self._over) + frame))

    @property
    def embeddings(self) -> Rows:
        """The rows before the first frame, once frame 0 is reached."""
        if self._embeddings is None:
            text = [self._row(i) for i in range(len(self._over))]
            self._embeddings = np.concatenate([self._head, np.stack(text) + self._over])
        return self._embeddings

    @property
    def n_shared(self) -> int:
        """As in `Prompt`."""
        return min(len(self._head) + self._n_reference, len(self._head) + len(self._over) - 1)

    def text_row(self, frame: int) -> NDArray[np.float32]:
        """[hidden], added to the codes of `frame` to make the talker's next input, which must have been reached."""
        return self._row(len(self._over) + frame)

    def _row(self, i: int) -> NDArray[np.float32]:
        with self._changed:
            return self._rows[i] if i < len(self._rows) else self._pad

    @property
    def n_text_tokens(self) -> int:
        """Of the text so far."""
        return self._n_tokens

    @property
    def budget(self) -> int | None:
        """Frames that are enough for the text, once all of it is there. Until then each frame takes a token of it."""
        return self._budget
