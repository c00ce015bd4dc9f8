"""How fast a model speaks here, as plain data.

    process start ─ load ─ voice ─ first utterance (its first frame: first audio from a cold start; the rest: warm-up)
        ─ short utterances (first audio, warm) ─ one utterance of n_frames, handed out frame by frame (ms a frame)
        ─ the same handed out as a whole (RTF)

End of speech is barred, so that runs compare whatever the weights would say. The parts of a frame are timed from
outside: methods of the loaded model are covered, while one utterance lasts, by ones that look at the clock.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_char_p
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, OptionError
from ..ggml.library import function
from ..model.files import ModelFiles
from ..model.gguf_file import GgufFile
from ..model.schema import SAMPLE_RATE_HZ
from ..speech.prompt import Layout
from ..tts import TTS, SpeechOptions, Utterance
from ..voice.voice import Voice

__all__ = [
    "FRAME_PARTS",
    "MIN_FRAMES",
    "TEXT",
    "Report",
    "machine_facts",
    "measure",
    "memory_gb",
    "plain_voice",
    "versions",
    "weight_types",
]

Report = dict[str, Any]
"""JSON's types only; units are in the names. `measure` tells what is in it."""

FRAME_PARTS = ("talker", "predictor", "codec", "other")
MIN_FRAMES = 2
"""The first frame pays for the prefill, so a second one is needed."""

TEXT = "The quick brown fox jumps over the lazy dog, again and again."  # as benchmarks/llama_pipeline.py says
_N_WARM_UP = 8
_N_FIRST_AUDIO = 5
_EARLY = slice(90, 110)
_N_LATE = 20
_LONG = 200
"""From so many frames on, early and late ones are compared."""

_imported = time.perf_counter()


def measure(
    model: Path,
    *,
    mmproj: Path | None = None,
    n_threads: int | None = None,
    n_frames: int = 100,
    layout: Layout = "whole",
    choose_voice: Callable[[TTS], Voice | None] | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Report:
    """Load a model, speak `n_frames` frames with it, and tell how long everything took.

    choose_voice: makes or loads the voice, once the model is there; None is `plain_voice`. on_stage hears what comes
    next. Raises OptionError and all that loading and speaking raise.

    -> format (of this report), runtime, model {name, kind, files, bytes, types}, voice {kind, reference_frames},
    layout, threads, side_by_side (threads of talker and predictor, and of the codec beside them; None where they take
    turns), machine {cpu, cores, memory_gb, system, features}, versions, frames, audio_seconds, load_seconds,
    voice_seconds, prefill {positions, kept, ms} (kept: known from speeches before), work_seconds (one utterance, from
    text to last sample, as `TTS.speak` does it), rtf (work_seconds / audio_seconds), streamed {work_seconds, rtf} (the
    same, frame by frame), frame_ms of that {talker, predictor, codec, other, whole: {median, p10, p90, mean}},
    first_audio {warm_ms, warm_all_ms, from_start_seconds, start}, peak_rss_gb (None where unknown), long_run
    {frame_100_ms, last_ms, ratio, frame_100_rss_gb, last_rss_gb} or None.
    """
    if n_frames < MIN_FRAMES:
        raise OptionError(f"a benchmark takes at least {MIN_FRAMES} frames, not {n_frames}")
    on_stage("loading")
    started = time.perf_counter()
    tts = TTS(model, mmproj=mmproj, n_threads=n_threads)
    loaded = time.perf_counter()
    voice = (choose_voice or plain_voice)(tts)
    chosen = time.perf_counter()
    options = SpeechOptions(seed=0, max_frames=n_frames, layout=layout)

    on_stage("warming up")
    with _endless(tts, voice, options) as utterance:
        frames = iter(utterance)
        next(frames)
        from_start_seconds, start = _process_seconds()
        for _ in range(min(_N_WARM_UP, n_frames) - 1):
            next(frames)
    on_stage("measuring the first frame")
    warm = [_first_audio_seconds(tts, voice, options) for _ in range(_N_FIRST_AUDIO)]
    on_stage(f"measuring {n_frames} frames, one by one")
    run = _run(tts, voice, options)
    on_stage(f"measuring {n_frames} frames as a whole")
    work_seconds = _seconds(lambda: _whole(tts, voice, options))
    peak_rss_gb = memory_gb("VmHWM", or_peak=True)

    audio_seconds = n_frames * tts._decoder.samples_per_frame / SAMPLE_RATE_HZ
    return {
        "format": 3,
        "runtime": "qwen3tts-gguf",
        "model": _model_facts(tts, ModelFiles(model, mmproj)),
        "voice": _voice_facts(voice),
        "layout": layout,
        "threads": tts._shares.all,
        "side_by_side": [tts._shares.language, tts._shares.codec] if tts._shares.side_by_side else None,
        "machine": machine_facts(),
        "versions": versions(),
        "frames": n_frames,
        "audio_seconds": audio_seconds,
        "load_seconds": loaded - started,
        "voice_seconds": chosen - loaded,
        "prefill": {"positions": run.n_prompt, "kept": run.n_kept, "ms": 1000 * run.prefill_seconds},
        "work_seconds": work_seconds,
        "rtf": work_seconds / audio_seconds,
        "streamed": {"work_seconds": run.work_seconds, "rtf": run.work_seconds / audio_seconds},
        "frame_ms": {part: _spread(1000 * seconds[1:]) for part, seconds in run.seconds.items()},
        "first_audio": {
            "warm_ms": 1000 * median(warm),
            "warm_all_ms": [1000 * seconds for seconds in warm],
            "from_start_seconds": from_start_seconds,
            "start": start,
        },
        "peak_rss_gb": peak_rss_gb,
        "long_run": _long_run(run),
    }


def plain_voice(tts: TTS) -> Voice | None:
    """What a model of this kind speaks with when nothing is said: its own choice, its first preset, a description."""
    if tts.kind == "custom_voice":
        return Voice.preset(next(iter(tts.vocabulary.speakers)))
    if tts.kind == "voice_design":
        return Voice(instruct="A calm voice.")
    return None


# -- speaking --------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    """One utterance: seconds of each frame [n_frames] by part and as a whole. The first frame's talker is the prefill;
    its seconds are not in the first `whole`."""

    n_prompt: int
    n_kept: int
    work_seconds: float
    prefill_seconds: float
    seconds: dict[str, NDArray[np.float64]]
    codes: NDArray[np.int32]
    rss_gb: dict[int, float | None] = field(default_factory=dict)
    """Memory after some frames."""


def _endless(tts: TTS, voice: Voice | None, options: SpeechOptions) -> Utterance:
    """An utterance that only ends at max_frames."""
    utterance = tts.utter(TEXT, voice, options)
    utterance.never_end()
    return utterance


def _first_audio_seconds(tts: TTS, voice: Voice | None, options: SpeechOptions) -> float:
    started = time.perf_counter()
    with _endless(tts, voice, options) as utterance:
        next(iter(utterance))
        return time.perf_counter() - started


def _whole(tts: TTS, voice: Voice | None, options: SpeechOptions) -> None:
    with _endless(tts, voice, options) as utterance:
        utterance.finish()


def _run(tts: TTS, voice: Voice | None, options: SpeechOptions) -> _Run:
    started = time.perf_counter()
    utterance = _endless(tts, voice, options)
    work_seconds = time.perf_counter() - started
    rows: list[tuple[float, ...]] = []  # talker, predictor, codec, whole
    rss_gb = {}
    with (
        utterance,
        _clocked(utterance._sequence, "forward") as talker,
        _clocked(tts._predictor, "predict") as predictor,
        _clocked(tts._decoder, "decode") as codec,
    ):
        frames = iter(utterance)
        for i in range(utterance.max_frames):
            whole = _seconds(lambda: next(frames))
            rows.append((talker.lap(), predictor.lap(), codec.lap(), whole))
            if i + 1 in (_EARLY.stop, utterance.max_frames):
                rss_gb[i + 1] = memory_gb("VmRSS")
    seconds = dict(zip(("talker", "predictor", "codec", "whole"), np.array(rows).T.copy(), strict=True))
    work_seconds += float(seconds["whole"].sum())
    prefill_seconds = float(seconds["talker"][0])
    seconds["whole"][0] -= prefill_seconds
    seconds["talker"][0] = 0
    language = seconds["talker"] + seconds["predictor"]
    side_by_side = tts._shares.side_by_side
    spent = np.maximum(language, seconds["codec"]) if side_by_side else language + seconds["codec"]
    other = np.maximum(seconds["whole"] - spent, 0)  # side by side, work on the first frame is another frame's as well
    by_part = {**seconds, "other": other}
    return _Run(
        n_prompt=len(utterance._prompt.embeddings),
        n_kept=utterance._sequence.n_kept,
        work_seconds=work_seconds,
        prefill_seconds=prefill_seconds,
        seconds={part: by_part[part] for part in (*FRAME_PARTS, "whole")},
        codes=utterance.codes,
        rss_gb=rss_gb,
    )


class _Clock:
    """Adds up the seconds of some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._told = 0.0

    def lap(self) -> float:
        """Seconds since the last lap."""
        lap, self._told = self.seconds - self._told, self.seconds
        return lap


@contextmanager
def _clocked(owner: object, method: str) -> Iterator[_Clock]:
    """Meanwhile this one object's method takes time from the clock."""
    clock, original = _Clock(), getattr(owner, method)

    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            clock.seconds += time.perf_counter() - started

    setattr(owner, method, timed)
    try:
        yield clock
    finally:
        delattr(owner, method)  # the class's own shows again


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    p10, middle, p90 = np.percentile(values, (10, 50, 90))
    return {"median": float(middle), "p10": float(p10), "p90": float(p90), "mean": float(values.mean())}


def _long_run(run: _Run) -> dict[str, float | None] | None:
    """Whether frames become slower, and memory fuller, the longer it speaks."""
    whole_ms = 1000 * run.seconds["whole"]
    if len(whole_ms) < _LONG:
        return None
    early_ms, late_ms = float(np.median(whole_ms[_EARLY])), float(np.median(whole_ms[-_N_LATE:]))
    return {
        "frame_100_ms": early_ms,
        "last_ms": late_ms,
        "ratio": late_ms / early_ms,
        "frame_100_rss_gb": run.rss_gb[_EARLY.stop],
        "last_rss_gb": run.rss_gb[len(whole_ms)],
    }


# -- the process and the machine -------------------------------------------------------------------------------------


def _process_seconds() -> tuple[float, str]:
    """The age of this process, and since what: Linux tells its creation to 10 ms, elsewhere our import has to do."""
    if sys.platform == "linux":
        # proc(5): field 22 is the start in clock ticks since boot; the second field, in brackets, may hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        created = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - created, "process creation"
    return time.perf_counter() - _imported, "import"


def memory_gb(line: str, *, or_peak: bool = False) -> float | None:
    """A line of Linux's /proc/self/status, mapped file pages included; elsewhere, at most, getrusage's peak.

    Not getrusage on Linux: there a child starts with its parent's peak.
    """
    if sys.platform == "linux":
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith(f"{line}:"):
                return int(text.split()[1]) * 1024 / 1e9
        return None
    if or_peak and sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    return None


def machine_facts() -> dict[str, Any]:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": memory_bytes and memory_bytes / 1e9,
        "system": f"{platform.system()} {platform.machine()}",
        "features": _features(),
    }


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _features() -> dict[str, list[str]]:
    """What each of ggml's backends says it uses: {"CPU": ["AVX2", ...]}"""
    # const char * llama_print_system_info(void);   -> "CPU : SSE3 = 1 | AVX2 = 1 | " for all backends in a row
    line: str = function("llama_print_system_info", c_char_p)().decode()
    features: dict[str, list[str]] = {}
    backend = ""
    for item in line.split("|"):
        name, _, rest = item.rpartition(" : ")
        backend = name.strip() or backend
        feature, equals, value = (part.strip() for part in rest.partition("="))
        if equals and value != "0":
            features.setdefault(backend, []).append(feature if value == "1" else f"{feature}={value}")
    return features


def versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("qwen3tts-gguf", "llama-cpp-python", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            versions[name] = "not installed"
    try:
        # const char * ggml_version(void);
        versions["ggml"] = function("ggml_version", c_char_p)().decode()
    except BackendError:
        versions["ggml"] = "not told"
    return versions


# -- the model -------------------------------------------------------------------------------------------------------


def _model_facts(tts: TTS, files: ModelFiles) -> dict[str, Any]:
    talker, mmproj = files.talker.file, files.mmproj.file
    return {
        "name": tts.name,
        "kind": tts.kind,
        "files": [str(file.path) for file in (talker, mmproj)],
        "bytes": [file.path.stat().st_size for file in (talker, mmproj)],
        "types": weight_types(files),
    }


def weight_types(files: ModelFiles) -> dict[str, list[str]]:
    """The types each part of a model stores its matrices in: {"talker": ["Q8_0"], ...}"""
    talker, mmproj = files.talker.file, files.mmproj.file
    return {
        "token table": _matrix_types(talker, "token_embd."),
        "talker": _matrix_types(talker, "blk."),
        "predictor": _matrix_types(mmproj, "a.gen.code."),
        "codec": _matrix_types(mmproj, "a.gen.wav."),
    }


def _matrix_types(file: GgufFile, prefix: str) -> list[str]:
    """Types of all but vectors, the one with most bytes first."""
    n_bytes: dict[str, int] = {}
    for info in file.tensors.values():
        if info.name.startswith(prefix) and len(info.shape) > 1:
            n_bytes[info.type.name] = n_bytes.get(info.type.name, 0) + info.n_bytes
    return sorted(n_bytes, key=lambda name: -n_bytes[name])


def _voice_facts(voice: Voice | None) -> Mapping[str, Any]:
    voice = voice or Voice()
    kinds = {
        "in context": voice.codes is not None,
        "speaker vector": voice.speaker is not None,
        "preset": voice.preset_name is not None,
        "description": voice.instruct is not None,
    }
    kind = next((kind for kind, fits in kinds.items() if fits), "the model's own choice")
    return {"kind": kind, "reference_frames": 0 if voice.codes is None else len(voice.codes)}
