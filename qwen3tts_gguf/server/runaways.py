"""Streams that did not end, so that a client which asks for the same again is answered at once."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from .problems import Problem
from .speech_fields import SpeechFields

__all__ = ["Runaways"]

_MOST = 256


class Runaways:
    """Requests whose speech did not end with the seed that they chose; the latest ones, as hashes.

    A stream that is cut looks to OpenAI's SDKs like a lost connection, so they ask again, twice. With the same seed the
    same would be made again, for nothing.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def add(self, fields: SpeechFields) -> None:
        """Its speech did not end."""
        if _has_seed(fields):
            self._seen[_key(fields)] = None
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)

    def refuse_again(self, fields: SpeechFields) -> None:
        """Raise Problem for a repeated request that is known."""
        if self._seen and _has_seed(fields) and _key(fields) in self._seen:
            message = "the speech did not end with this seed, and would not now: choose another seed"
            raise Problem(500, "no_end_of_speech", message, param="seed", may_retry=False)


def _has_seed(fields: SpeechFields) -> bool:
    return fields.seed is not None and fields.seed >= 0


def _key(fields: SpeechFields) -> bytes:
    return blake2b(fields.model_dump_json().encode("utf-8", "surrogatepass"), digest_size=16).digest()
