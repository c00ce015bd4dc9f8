"""What a sound file really is, whatever its name: files that libsndfile cannot open, and headers that are wrong.

WAV, data size 0       its writer never came back to the header: the sound is everything behind it
MP3 behind a tag       an ID3v2 tag is skipped, and what lies between it and the first frame
m4a, webm, amr, ...    named, with the ffmpeg command that makes a WAV of them
HTML, a Git LFS pointer, an empty file    named: nothing can be read from them
"""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import BinaryIO

__all__ = ["identify", "repaired"]

_HEAD_BYTES = 4096

# Where the bytes stand, what they are, what the file then is, and whether ffmpeg reads it.
_MAGIC: tuple[tuple[int, bytes, str, bool], ...] = (
    (4, b"ftyp", "MPEG-4 (m4a, mp4, mov)", True),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska", True),
    (0, b"#!AMR", "AMR", True),
    (0, b"\x30\x26\xb2\x75", "Windows Media", True),
    (8, b"AVI ", "AVI video", True),
    (0, b"FLV", "Flash video", True),
    (0, b"OggS", "Ogg with a codec that libsndfile does not know", True),
    (0, b"wvpk", "WavPack", True),
    (0, b"MAC ", "Monkey's Audio", True),
    (0, b"DSD ", "DSD", True),
    (0, b"\xff\xf1", "AAC", True),
    (0, b"\xff\xf9", "AAC", True),
    (0, b"MThd", "MIDI: notes, no sound", False),
    (0, b"PK\x03\x04", "a ZIP archive", False),
    (0, b"%PDF", "a PDF", False),
    (0, b"GGUF", "a model", False),
)
_LFS_POINTER = b"version https://git-lfs"


def identify(path: Path) -> tuple[str, str]:
    """What a file that libsndfile refused is, as the end of a sentence, and what to do about it."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return "it is empty", "save or copy it again"
    if text.startswith(_LFS_POINTER):
        return "it is a Git LFS pointer, not the file itself", "download the file with git lfs pull"
    if text[:1] == b"<":
        return "it is a web page or XML", "download the sound itself"
    for at, magic, name, is_sound in _MAGIC:
        if head[at:].startswith(magic):
            return f"it is {name}", _ffmpeg(path) if is_sound else "give a recording, best as WAV or FLAC"
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\n\r\f\x1b" for byte in head):
        return "it is text", "give a recording, best as WAV or FLAC"
    return "its format is not known", _ffmpeg(path)


def _ffmpeg(path: Path) -> str:
    target = path.with_suffix(".wav")
    if target == path:
        target = path.with_name(f"{path.stem}-pcm.wav")
    names = [f"./{name}" if name.startswith("-") else name for name in map(str, (path, target))]
    source, target_name = map(shlex.quote, names)
    return f"make a WAV of it: ffmpeg -i {source} -vn {target_name}"


def repaired(path: Path) -> BinaryIO | None:
    """The file with a correct header, for those named above; None for all others. Raises OSError."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            patches = _wav_sizes(file, size)
            return _Mended(path, 0, patches) if patches else None
        if head[:3] == b"ID3":
            start = _first_mp3_frame(file)
            return _Mended(path, start, {}) if start else None
    return None


def _wav_sizes(file: BinaryIO, size: int) -> dict[int, bytes]:
    """Offset -> the right bytes, of the size of a `data` chunk that claims to be empty although sound follows it."""
    at = 12
    while at + 8 <= size:
        file.seek(at)
        name, claimed = file.read(4), int.from_bytes(file.read(4), "little")
        if name == b"data":
            there = size - at - 8
            if claimed or not there or _is_chunks(file, at + 8, size):
                return {}
            known = min(there, 0xFFFF_FFFE)
            return {4: min(size - 8, 0xFFFF_FFFE).to_bytes(4, "little"), at + 4: known.to_bytes(4, "little")}
        at += 8 + claimed + claimed % 2
    return {}


def _is_chunks(file: BinaryIO, at: int, size: int) -> bool:
    """Whether nothing but whole chunks lies between `at` and the end: then the sound is empty indeed."""
    while at + 8 <= size:
        file.seek(at)
        name, n = file.read(4), int.from_bytes(file.read(4), "little")
        if not name.isalnum() and not name.strip().isalnum():
            return False
        at += 8 + n + n % 2
    return at in (size, size + 1)


_FRAME_SEARCH_BYTES = 1 << 20


def _first_mp3_frame(file: BinaryIO) -> int:
    """Where the frames start behind the tags; 0 if none is found."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or any(byte & 0x80 for byte in head[6:]):
            break
        a, b, c, d = head[6:]
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    file.seek(at)
    data = file.read(_FRAME_SEARCH_BYTES)
    i = data.find(b"\xff")
    while 0 <= i < len(data) - 4:
        length = _frame_bytes(data[i : i + 4])
        follows = data[i + length : i + length + 4]
        if length and (len(follows) < 4 or _frame_bytes(follows)):
            return at + i
        i = data.find(b"\xff", i + 1)
    return 0


_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),  # MPEG 1, layer III
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),  # MPEG 2 and 2.5
)
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _frame_bytes(header: bytes) -> int:
    """The length of a frame of MPEG layer III from its four bytes of header (ISO 11172-3, 2.4.2.3); 0 if it is none."""
    version, layer, rate = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 2 & 3
    if header[0] != 0xFF or header[1] < 0xE0 or version == 1 or layer != 1 or rate == 3:
        return 0
    kbits = _KBITS[0 if version == 3 else 1][header[2] >> 4]
    per_frame = 144_000 if version == 3 else 72_000
    return per_frame * kbits // _RATES_HZ[version][rate] + (header[2] >> 1 & 1) if kbits else 0


class _Mended(io.RawIOBase, BinaryIO):
    """A file from `start` on, with some bytes replaced: nothing is copied, so its size does not matter."""

    def __init__(self, path: Path, start: int, patches: dict[int, bytes]) -> None:
        self._file, self._start, self._patches = path.open("rb"), start, patches
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        at, view = self.tell(), memoryview(buffer).cast("B")
        data = bytearray(self._file.read(len(view)))
        for offset, right in self._patches.items():
            for i, byte in enumerate(right, offset - at):
                if 0 <= i < len(data):
                    data[i] = byte
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset + (self._start if whence == io.SEEK_SET else 0), whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def close(self) -> None:
        self._file.close()
        super().close()
