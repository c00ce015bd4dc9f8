"""Errors as clients see them: OpenAI's error object, with the status and the headers that its SDKs read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from ..errors import AudioError, Error, NoEndOfSpeech, OptionError, TextError, UsageError, VoiceError

__all__ = ["Problem", "busy", "problem_of", "stopping"]

_TYPES = {401: "invalid_request_error", 429: "rate_limit_error"}


class Problem(Exception):
    """A request that is not answered as it was meant.

    status: of HTTP. code: a word for programs. param: the field that is wrong. may_retry: False tells OpenAI's SDKs,
    which repeat 409, 429 and every 5xx, that the same request fails again.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        may_retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})
        if not may_retry:
            self.headers["x-should-retry"] = "false"

    @property
    def type(self) -> str:
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def response(self) -> JSONResponse:
        return JSONResponse({"error": self.error}, self.status, self.headers)


def busy(seconds: float) -> Problem:
    """The queue is full; the next place may be free after so many seconds."""
    wait = max(1, min(120, math.ceil(seconds)))
    headers = {"Retry-After": str(wait), "retry-after-ms": str(1000 * wait)}
    return Problem(429, "queue_full", f"too many requests are waiting: try again in {wait} s", headers=headers)


def stopping() -> Problem:
    return Problem(503, "shutting_down", "the server is stopping", headers={"Retry-After": "5"})


def problem_of(error: BaseException) -> Problem:
    """Any exception as a problem. What is no error of ours becomes a 500 that shows nothing of the inside."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, NoEndOfSpeech):
        return Problem(500, "no_end_of_speech", str(error))
    if isinstance(error, TextError):
        return Problem(400, "nothing_to_speak", str(error), param="input")
    if isinstance(error, AudioError):
        return Problem(400, "invalid_reference_audio", str(error), param="ref_audio")
    if isinstance(error, OptionError):
        return Problem(400, "invalid_option", str(error))
    if isinstance(error, VoiceError):
        return Problem(400, "invalid_voice", str(error), param="voice")
    if isinstance(error, UsageError):
        return Problem(503, "model_closed", str(error), headers={"Retry-After": "5"})
    if isinstance(error, Error):
        return Problem(500, "synthesis_failed", str(error))
    if isinstance(error, MemoryError):
        return Problem(500, "out_of_memory", "there is not enough memory for this", may_retry=False)
    return Problem(500, "internal_error", "the server failed at this request; its log says more")
