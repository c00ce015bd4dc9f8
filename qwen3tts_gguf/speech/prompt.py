"""The talker's input for one utterance: rows of embeddings before the first frame, and text rows to add to later ones.

    [instruct]  <|im_start|>user\\n{instruct}<|im_end|>\\n
    role        <|im_start|>assistant\\n
    tags        tts_pad ... + think, think_bos, language, think_eos (or nothink, think_bos, think_eos)
    [speaker]   tts_pad     + speaker row
    start       tts_bos     + codec pad
    then one of two layouts:
      whole     text and tts_eos, each + codec pad;  tts_pad + codec bos        (official non_streaming_mode)
      stepwise  first text row + codec bos; the others and tts_eos one per frame  (official default for cloning)

Each row of tags, speaker and start is a sum of a text-side and a codec-side embedding. In-context cloning puts the
reference's text before the text, and the summed embeddings of its codes after codec bos.
Mirrors `generate` and `generate_icl_prompt` (qwen-tts 0.1.1, core/models/modeling_qwen3_tts.py) and the templates of
inference/qwen3_tts_model.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TextError
from ..model.tokenizer import Tokenizer
from ..model.vocabulary import Vocabulary
from ..nets.talker import Talker
from .live_prompt import LivePrompt
from .live_text import LiveText, LiveTokens
from .options import Layout

__all__ = ["Prompt", "PromptBuilder", "Reference"]

Rows = NDArray[np.float32]  # [n, hidden]

_ROLE_TOKENS = 3  # <|im_start|> assistant \n
_TEXT_END_TOKENS = 5  # <|im_end|> \n <|im_start|> assistant \n
_REFERENCE_END_TOKENS = 2  # <|im_end|> \n


@dataclass(frozen=True)
class Prompt:
    """What goes in before the first frame, and what each frame's input gets on top of its codes."""

    embeddings: Rows
    trailing: Rows
    """Row i is added to the input after frame i."""
    pad: NDArray[np.float32]
    """[hidden], added once `trailing` is used up."""
    n_text_tokens: int
    n_shared: int = 0
    """Leading rows that another text in this voice and language has as well."""

    @property
    def n_rows(self) -> int:
        """Before the first frame."""
        return len(self.embeddings)

    def reaches(self, frame: int) -> bool:
        """Whether the talker's input for a frame is known, which differs for a text that is still arriving."""
        return True

    def text_row(self, frame: int) -> NDArray[np.float32]:
        """[hidden], added to the codes of `frame` to make the talker's next input."""
        return np.asarray(self.trailing[frame] if frame < len(self.trailing) else self.pad)


@dataclass(frozen=True)
class Reference:
    """A clip to continue from: its transcript, and its codes as the talker takes them."""

    text: str
    code_embeddings: Rows
    """[frames, hidden]: each frame's sixteen code embeddings, summed."""


class PromptBuilder:
    """Looks rows up in the talker's table and lays them out."""

    def __init__(self, talker: Talker, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        self._talker, self._tokenizer, self._vocabulary = talker, tokenizer, vocabulary
        t = vocabulary.text
        self._tts_bos, self._tts_eos, self._tts_pad = talker.embed_text([t.tts_bos, t.tts_eos, t.tts_pad])
        self._codec_pad, self._codec_bos = talker.embed_codec([vocabulary.codec.pad, vocabulary.codec.bos])

    def n_tokens(self, text: str) -> int:
        """Of the text alone. Raises TextError."""
        return len(self._tokenizer.encode(text))

    def text_ids(self, text: str) -> list[int]:
        """Ids of the whole assistant template around `text`. Raises TextError."""
        t, encode = self._vocabulary.text, self._tokenizer.encode
        newline = encode("\n")
        return [t.im_start, *encode(f"assistant\n{text}"), t.im_end, *newline, t.im_start, *encode("assistant\n")]

    def build(
        self,
        text: str,
        *,
        language: int | None,
        speaker: NDArray[np.float32] | None = None,
        instruct: str | None = None,
        reference: Reference | None = None,
        layout: Layout = "whole",
    ) -> Prompt:
        """language: a codec token, None for auto. speaker: a row [hidden]. Raises TextError."""
        ids = self.text_ids(text)
        role, body = ids[:_ROLE_TOKENS], ids[_ROLE_TOKENS:-_TEXT_END_TOKENS]
        instruct_ids = [] if instruct is None else self._instruct_ids(instruct)
        reference_ids = [] if reference is None else self._reference_ids(reference.text)
        self._require_room(len(body) + len(instruct_ids) + len(reference_ids))
        head = np.concatenate([self._talker.embed_text([*instruct_ids, *role]), self._tags(language, speaker)])
        if reference is None:
            rest, trailing = self._text_part(body, layout)
        else:
            rest, trailing = self._in_context_part([*reference_ids, *body], reference.code_embeddings, layout)
        embeddings = np.concatenate([head, rest])
        n_shared = min(len(head) + len(reference_ids), len(embeddings) - 1)
        return Prompt(embeddings, trailing, self._tts_pad, n_text_tokens=len(body), n_shared=n_shared)

    def live(
        self,
        text: LiveText,
        *,
        language: int | None,
        speaker: NDArray[np.float32] | None = None,
        instruct: str | None = None,
        reference: Reference | None = None,
    ) -> LivePrompt:
        """The same in the stepwise layout, for a text that is still arriving. Raises TextError, UsageError."""
        role = self.text_ids("")[:_ROLE_TOKENS]
        instruct_ids = [] if instruct is None else self._instruct_ids(instruct)
        reference_ids = [] if reference is None else self._reference_ids(reference.text)
        codes = [] if reference is None else [reference.code_embeddings]
        over = np.concatenate([self._codec_bos[None], *codes])
        self._require_room(len(instruct_ids) + len(reference_ids))
        head = np.concatenate([self._talker.embed_text([*instruct_ids, *role]), self._tags(language, speaker)])
        return LivePrompt(
            text,
            LiveTokens(self._tokenizer),
            head=head,
            over=over,
            reference=self._talker.embed_text(reference_ids),
            end=self._tts_eos,
            pad=self._tts_pad,
            embed=self._talker.embed_text,
            n_room=self._talker.config.context_length - len(head) - len(over),
        )

    def _instruct_ids(self, instruct: str) -> list[int]:
        t, encode = self._vocabulary.text, self._tokenizer.encode
        return [t.im_start, *encode(f"user\n{instruct}"), t.im_end, *encode("\n")]

    def _reference_ids(self, text: str) -> list[int]:
        t, encode = self._vocabulary.text, self._tokenizer.encode
        ids = [t.im_start, *encode(f"assistant\n{text}"), t.im_end, *encode("\n")]
        return ids[_ROLE_TOKENS:-_REFERENCE_END_TOKENS]

    def _require_room(self, n_tokens: int) -> None:
        """Before they become rows of thousands of bytes each. What then is left for frames, the caller judges."""
        n_most = self._talker.config.context_length
        if n_tokens > n_most:
            raise TextError(
                f"the text is too long for this model: {n_tokens} tokens, but its context has room for {n_most}"
            )

    def _tags(self, language: int | None, speaker: NDArray[np.float32] | None) -> Rows:
        c = self._vocabulary.codec
        tags = (
            [c.nothink, c.think_bos, c.think_eos] if language is None else [c.think, c.think_bos, language, c.think_eos]
        )
        codec_side = [*self._talker.embed_codec(tags), *([speaker] if speaker is not None else []), self._codec_pad]
        text_side = [*[self._tts_pad] * (len(codec_side) - 1), self._tts_bos]
        rows: Rows = np.stack(text_side) + np.stack(codec_side)
        return rows

    def _text_part(self, body: list[int], layout: Layout) -> tuple[Rows, Rows]:
        text = np.concatenate([self._talker.embed_text(body), self._tts_eos[None]])
        if layout == "stepwise":
            return text[:1] + self._codec_bos, text[1:]
        start = self._tts_pad + self._codec_bos
        return np.concatenate([text + self._codec_pad, start[None]]), self._tts_pad[None]

    def _in_context_part(self, ids: list[int], code_embeddings: Rows, layout: Layout) -> tuple[Rows, Rows]:
        text = np.concatenate([self._talker.embed_text(ids), self._tts_eos[None]])
        codes = np.concatenate([self._codec_bos[None], code_embeddings])
        if layout == "whole":
            return np.concatenate([text + self._codec_pad, codes + self._tts_pad]), self._tts_pad[None]
        if len(text) > len(codes):
            return text[: len(codes)] + codes, text[len(codes) :]
        padding = np.repeat(self._tts_pad[None], len(codes) - len(text), axis=0)
        return np.concatenate([text, padding]) + codes, self._tts_pad[None]
