"""What of a text can be spoken: held against Unicode before anything is made of it.

    letters, digits, symbols, emoji    spoken; symbols and emoji alone with a warning, for the model may say anything
    only punctuation or invisible      refused: nothing would be pronounced, and the model would not know when to stop
    control characters                 taken for spaces; line ends stay
    unpaired surrogates                refused: not Unicode, as when bytes of another encoding were given
    special tokens (<|im_end|>)        text like any other: tokenizer.py knows none

Length is judged in tokens, by prompt.py.
"""

from __future__ import annotations

import unicodedata
import warnings

from ..errors import QualityWarning, TextError

__all__ = ["spoken_text"]

_BYTE_ORDER_MARK = "\ufeff"
_LINE_ENDS_AND_TABS = "\n\r\t"


def spoken_text(text: str) -> str:
    """The text without its edges and control characters. Raises TextError; warns with QualityWarning."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise TextError("the text holds unpaired surrogates: it is not valid Unicode")
    text = "".join(
        " " if unicodedata.category(letter) == "Cc" and letter not in _LINE_ENDS_AND_TABS else letter
        for letter in text.removeprefix(_BYTE_ORDER_MARK)
    ).strip()
    if not text:
        raise TextError("there is no text to speak")
    kinds = {unicodedata.category(letter)[0] for letter in text}
    if not kinds & {"L", "N"}:
        if "S" not in kinds:
            raise TextError("there is nothing to pronounce in the text: no letter, digit or symbol")
        warnings.warn(
            "there is no letter or digit in the text: what is said of symbols and emoji is up to the model",
            QualityWarning,
            stacklevel=3,
        )
    return text
