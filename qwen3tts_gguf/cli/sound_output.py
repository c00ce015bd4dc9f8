"""Where `speak` sends sound: a file, stdout, the loudspeaker, or a file and the loudspeaker; at any speed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

from ..errors import OptionError
from .console import output_target
from .panels import OUTPUT, flag, value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..audio_sink import AudioSink
    from ..audio_speed import SpeedChanger

__all__ = ["SoundOptions", "SoundTarget"]


class AudioFormat(str, Enum):
    """`open_sink(format=...)`"""

    WAV = "wav"
    FLAC = "flac"
    OGG = "ogg"
    OPUS = "opus"
    MP3 = "mp3"
    PCM = "pcm"


@dataclass(frozen=True)
class SoundTarget:
    """One place that sound goes to."""

    file: Path | BinaryIO | None
    """A file or stdout; None: it is played only."""
    format: str | None
    speed: float
    play: bool

    @property
    def is_whole(self) -> bool:
        """Whether nobody listens meanwhile, so that what fails can be retried."""
        return isinstance(self.file, Path) and not self.play

    @contextmanager
    def opened(self, *, keep_partial: bool = False) -> Iterator[AudioSink]:
        """The sink; a file appears only when the block ends well, or, with `keep_partial`, in any case."""
        from ..audio_player import open_player
        from ..audio_sink import open_sink
        from ..audio_speed import SpeedChanger

        with ExitStack() as stack:
            sinks = []
            if self.file is not None:
                sinks.append(stack.enter_context(open_sink(self.file, self.format, keep_partial=keep_partial)))
            if self.play:
                sinks.append(stack.enter_context(open_player()))
            changed = _Changed(sinks, SpeedChanger(self.speed))
            yield changed
            changed.end()


class _Changed:
    """A sink for several, at another speed."""

    def __init__(self, sinks: list[AudioSink], changer: SpeedChanger) -> None:
        self._sinks, self._changer = sinks, changer

    def write(self, samples: NDArray[np.float32]) -> None:
        self._write(self._changer.feed(samples))

    def end(self) -> None:
        self._write(self._changer.end())

    def _write(self, samples: NDArray[np.float32]) -> None:
        for sink in self._sinks:
            sink.write(samples)


@dataclass(frozen=True)
class SoundOptions:
    """How the sound is written."""

    format: Annotated[
        AudioFormat | None,
        value(
            "FORMAT",
            OUTPUT,
            "Audio format: wav, flac, ogg, opus, mp3, or pcm (samples alone, 16 bits). Default: by suffix; stdout wav.",
            "--format",
        ),
    ] = None
    speed: Annotated[
        float,
        value("X", OUTPUT, "Speed, 0.25 to 4; the pitch stays. Default: 1.", "--speed", show_default=False),
    ] = 1.0
    play: Annotated[
        bool,
        flag(OUTPUT, "Play the speech while it is made. Without -o nothing is written.", "--play"),
    ] = False

    def folder_target(self, folder: Path, *, is_default: bool) -> SoundTarget:
        """Of many files in a folder: each is this target with `file` replaced. Raises OptionError."""
        from ..audio_speed import SpeedChanger

        SpeedChanger(self.speed)
        if is_default or str(folder) == "-":
            raise OptionError("--lines writes many files", hint="give -o FOLDER")
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"{folder}: this is a file", hint="--lines writes into a folder")
        if self.play:
            raise OptionError("--play plays one speech: leave it out with --lines")
        return SoundTarget(folder, self.format.value if self.format else AudioFormat.WAV.value, self.speed, False)

    def target(self, output: Path, *, is_default: bool) -> SoundTarget:
        """Where sound goes. is_default: no output was named. Raises AudioError, OptionError."""
        from ..audio_player import require_player
        from ..audio_speed import SpeedChanger

        SpeedChanger(self.speed)  # refuses what is out of range
        format = self.format.value if self.format else None
        if self.play:
            require_player()
            if str(output) == "-":
                raise OptionError("--play and -o - both take the speech as it is made: give one")
        file = None if self.play and is_default else output_target(output, format)
        return SoundTarget(file, format, self.speed, self.play)
