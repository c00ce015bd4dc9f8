"""Sound to the loudspeaker as it comes, by sounddevice (the extra `play`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .audio_sink import AudioSink
from .errors import AudioError, OptionError
from .model.schema import SAMPLE_RATE_HZ

__all__ = ["open_player", "require_player"]


def require_player() -> Any:
    """The module sounddevice. Raises OptionError where it or its library is not installed."""
    try:
        import sounddevice
    except ImportError:
        raise OptionError("playing needs sounddevice", hint="pip install 'qwen3tts-gguf[play]'") from None
    except OSError:
        raise OptionError(
            "playing needs the PortAudio library", hint="on Debian and Ubuntu: apt install libportaudio2"
        ) from None
    return sounddevice


@contextmanager
def open_player() -> Iterator[AudioSink]:
    """A sink that plays on the default device and takes sound as fast as it is played.

    When the block ends well it waits for the last sound; otherwise it stops at once. Raises OptionError, and AudioError
    where there is no device.
    """
    sounddevice = require_player()
    try:
        device = sounddevice.OutputStream(samplerate=SAMPLE_RATE_HZ, channels=1, dtype="float32")
        device.start()
    except sounddevice.PortAudioError as error:
        raise AudioError(f"there is no sound device to play on ({error})") from None
    try:
        yield _Player(device)
        device.stop()
    except sounddevice.PortAudioError as error:
        raise AudioError(f"the sound device stopped ({error})") from None
    finally:
        device.close()


class _Player:
    def __init__(self, device: Any) -> None:
        self._device = device

    def write(self, samples: NDArray[np.float32]) -> None:
        self._device.write(np.ascontiguousarray(samples, np.float32)[:, None])
