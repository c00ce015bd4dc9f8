"""One .m4b of all chapters: AAC by PyAV, tags and cover by mutagen (extra `book`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import AudioError, OptionError
from ..model.schema import SAMPLE_RATE_HZ
from .tagging import Tags, require_mutagen

__all__ = ["require_av", "write_m4b"]

_BITS_PER_SECOND = 64_000


def require_av() -> Any:
    """Raises OptionError if it is not installed."""
    try:
        import av
    except ImportError:
        raise OptionError("an .m4b needs PyAV", hint="pip install 'qwen3tts-gguf[book]'") from None
    return av


def write_m4b(
    path: Path, chapters: Sequence[tuple[str, Path, int]], tags: Tags, advance: Callable[[float], None]
) -> None:
    """path: to be written, of any name. chapters: title, sound file and its number of samples at 24 kHz. advance:
    called with how much is done, 0 to 1. Raises AudioError."""
    av = require_av()
    try:
        with av.open(str(path), "w", format="ipod") as output:
            stream = output.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
            stream.bit_rate = _BITS_PER_SECOND
            start, marks = 0, []
            for i, (title, _, n_samples) in enumerate(chapters):
                marks.append(
                    {
                        "id": i, "start": start, "end": start + n_samples, "time_base": Fraction(1, SAMPLE_RATE_HZ),
                        "metadata": {"title": title},
                    }
                )  # fmt: skip
                start += n_samples
            output.set_chapters(marks)
            n_written = 0
            for _, sound, _ in chapters:
                with av.open(str(sound)) as source:
                    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
                    for decoded in source.decode(audio=0):
                        for frame in resampler.resample(decoded):
                            frame.pts, frame.time_base = n_written, Fraction(1, SAMPLE_RATE_HZ)
                            n_written += frame.samples
                            output.mux(stream.encode(frame))
                        advance(min(1.0, n_written / start))
            output.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise AudioError(f"{path}: cannot be written ({error})") from None
    _tag(path, tags)


def _tag(path: Path, tags: Tags) -> None:
    require_mutagen()
    from mutagen.mp4 import MP4, MP4Cover

    file = MP4(path)
    file["\xa9nam"] = file["\xa9alb"] = tags.book
    if tags.author:
        file["\xa9ART"] = tags.author
    file["\xa9gen"] = "Audiobook"
    file["stik"] = [2]  # audiobook
    if tags.cover:
        kind = MP4Cover.FORMAT_PNG if tags.cover_type == "image/png" else MP4Cover.FORMAT_JPEG
        file["covr"] = [MP4Cover(tags.cover, imageformat=kind)]
    file.save()
