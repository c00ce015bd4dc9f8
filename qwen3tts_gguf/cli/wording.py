"""The library's words in those of the command line: `name` in backticks is a parameter there and a flag here."""

from __future__ import annotations

import re

__all__ = ["in_flags"]

FLAGS = {
    "Voice.from_audio": "--voice",
    "Voice.preset": "--speaker",
    "Voice.shipped": "--voice",
    "Voice.design": "--instruct",
    "Voice.from_speech": "--save-voice",
    "Voice.without_codes": "--x-vector-only",
    "check_memory": "--force",
    "container": "--as",
    "overwrite": "--force",
    "unrecorded": "--force",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            "codec_type", "device", "encoding", "format", "greedy", "id", "instruct", "instruct_column", "language",
            "language_column", "layout", "max_frames", "mmproj", "name", "on_error", "output", "pause",
            "repetition_penalty", "restart", "retries", "seed", "shard_rows", "speed", "split",
            "sub_repetition_penalty", "sub_temperature", "sub_top_k", "sub_top_p",
            "temperature", "text", "top_k", "top_p", "type", "voice", "voice_column",
        )
    },
}  # fmt: skip
_NAME = re.compile(r"`([\w.]+)`")


def in_flags(text: str) -> str:
    """A message of the library with flags instead of its parameters."""
    return _NAME.sub(lambda found: FLAGS.get(found[1], found[0]), text)
