"""How fast a model speaks here, as plain data.

    process start ─ load ─ voice ─ first utterance (its first frame: first sound from a cold start; the rest: warm-up)
        ─ short utterances (first sound, warm) ─ one utterance of n_frames, handed out frame by frame (ms per frame)
        ─ the same handed out as a whole (RTF)

The end of speech is suppressed, so that runs compare whatever the weights would choose. The times of a frame's parts
are the engine's own (`Utterance.timings`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..model.files import ModelFiles
from ..model.schema import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from ..speech.options import Layout, SpeechOptions
from ..tts import TTS
from ..voice.voice import Voice
from .inspection import weight_types
from .machine import machine_facts, memory_gb, process_seconds, versions

__all__ = ["FRAME_PARTS", "MIN_FRAMES", "TEXT", "Report", "measure", "plain_voice"]

Report = dict[str, Any]
"""JSON's types only; units are in the names. `measure` documents its contents."""

FRAME_PARTS = ("talker", "predictor", "codec", "other")
MIN_FRAMES = 2
"""The first frame pays for the prefill, so a second one is needed."""

TEXT = "The quick brown fox jumps over the lazy dog, again and again."  # the same as in benchmarks/llama_pipeline.py
_N_WARM_UP = 8
_N_FIRST_AUDIO = 5
_N_COMPANY = 20
_OTHER_TEXT = "Good morning. There are seven letters for you on the table."
_EARLY = slice(90, 110)
_N_LATE = 20
_LONG = 200
"""From so many frames on, early and late ones are compared."""


def measure(
    model: Path,
    *,
    mmproj: Path | None = None,
    n_threads: int | None = None,
    amx: str = "auto",
    device: str = "cpu",
    plan: str = "",
    n_frames: int = 100,
    layout: Layout = "whole",
    choose_voice: Callable[[TTS], Voice | None] | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Report:
    """Load a model, speak `n_frames` frames with it, and report how long everything took.

    choose_voice: makes or loads the voice, once the model is there; None is `plain_voice`. on_stage is called with what
    comes next. Raises OptionError and all that loading and speaking raise.

    -> format (of this report), runtime, model {name, kind, files, bytes, types}, voice {kind, reference_frames},
    layout, threads, side_by_side (threads of talker and predictor, and of the codec in parallel; None where they
    take turns), machine {cpu, cores, memory_gb, system, features}, plan (engine/plan.py, in words), placement (net
    -> device), amx_lost (the CPU has AMX, and this build cannot fully use it), notes (what could not be found out
    about the machine, or placed as asked), versions, frames, audio_seconds, load_seconds, voice_seconds, prefill
    {positions, reused (from earlier speeches), ms}, work_seconds (one utterance, from text to last sample, as
    `TTS.speak` makes it), rtf (work_seconds / audio_seconds), streamed {work_seconds, rtf} (the same, frame by
    frame), frame_ms of that {talker, predictor, codec, other, whole: {median, p10, p90, mean}}, first_audio
    {warm_ms, warm_all_ms, from_start_seconds, start}, peak_rss_gb (None where unknown), long_run {frame_100_ms,
    last_ms, ratio, frame_100_rss_gb, last_rss_gb} or None, company {frames, as_alone (how many of them, from the
    first on, have the same codes when another speech shares the steps)}, None where all is on the CPU, which promises
    that.
    """
    if n_frames < MIN_FRAMES:
        raise OptionError(f"a benchmark takes at least {MIN_FRAMES} frames, not {n_frames}")
    on_stage("loading")
    started = time.perf_counter()
    lanes = 1 if device == "cpu" else 2  # the second one for `_company`
    tts = TTS(model, mmproj=mmproj, n_threads=n_threads, n_lanes=lanes, amx=amx, device=device, plan=plan)
    loaded = time.perf_counter()
    voice = (choose_voice or plain_voice)(tts)
    chosen = time.perf_counter()
    options = SpeechOptions(seed=0, max_frames=n_frames, layout=layout, endless=True)

    on_stage("warming up")
    with tts.utter(TEXT, voice, replace(options, max_frames=min(_N_WARM_UP, n_frames))) as utterance:
        frames = iter(utterance)
        next(frames)
        from_start_seconds, start = process_seconds()
        for _ in frames:
            pass
    on_stage("measuring the first frame")
    warm = [_first_audio_seconds(tts, voice, options) for _ in range(_N_FIRST_AUDIO)]
    on_stage(f"measuring {n_frames} frames, one by one")
    run = _run(tts, voice, options)
    on_stage(f"measuring {n_frames} frames as a whole")
    work_seconds = _seconds(lambda: _whole(tts, voice, options))
    peak_rss_gb = memory_gb("VmHWM", or_peak=True)
    company = _company(tts, voice, options)

    audio_seconds = n_frames * SAMPLES_PER_FRAME / SAMPLE_RATE_HZ
    threads = tts.plan.threads
    return {
        "format": 3,
        "runtime": "qwen3tts-gguf",
        "model": _model_facts(tts, ModelFiles(model, mmproj)),
        "voice": _voice_facts(voice),
        "layout": layout,
        "threads": threads.all,
        "side_by_side": [threads.language, threads.codec] if threads.side_by_side else None,
        "machine": machine_facts(),
        "plan": tts.plan.entries(),
        "placement": tts.placement,
        "amx_lost": tts.plan.amx_lost,
        "notes": [str(note) for note in (*tts.plan.notes, *tts.notes)],
        "versions": versions(),
        "frames": n_frames,
        "audio_seconds": audio_seconds,
        "load_seconds": loaded - started,
        "voice_seconds": chosen - loaded,
        "prefill": {"positions": run.n_prompt, "reused": run.n_reused, "ms": 1000 * run.prefill_seconds},
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
        "company": company,
    }


def plain_voice(tts: TTS) -> Voice:
    """What a model of this kind speaks with when no voice is chosen: its own choice, its first preset, a
    description."""
    if tts.kind == "custom_voice":
        return Voice.preset(next(iter(tts.vocabulary.speakers)))
    if tts.kind == "voice_design":
        return Voice(instruct="A calm voice.")
    return Voice()


# -- speaking --------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    """One utterance: seconds of each frame [n_frames] by part and as a whole. The first frame's talker is the prefill;
    its seconds are not in the first `whole`."""

    n_prompt: int
    n_reused: int
    work_seconds: float
    prefill_seconds: float
    seconds: dict[str, NDArray[np.float64]]
    codes: NDArray[np.int32]
    rss_gb: dict[int, float | None] = field(default_factory=dict)
    """Memory after some frames."""


def _first_audio_seconds(tts: TTS, voice: Voice | None, options: SpeechOptions) -> float:
    started = time.perf_counter()
    with tts.utter(TEXT, voice, options) as utterance:
        next(iter(utterance))
        return time.perf_counter() - started


def _whole(tts: TTS, voice: Voice | None, options: SpeechOptions) -> None:
    with tts.utter(TEXT, voice, options) as utterance:
        utterance.finish()


def _run(tts: TTS, voice: Voice | None, options: SpeechOptions) -> _Run:
    started = time.perf_counter()
    utterance = tts.utter(TEXT, voice, options)
    work_seconds = time.perf_counter() - started
    whole, rss_gb = np.zeros(utterance.max_frames), {}
    with utterance:
        frames = iter(utterance)
        for i in range(len(whole)):
            whole[i] = _seconds(lambda: next(frames))
            if i + 1 in (_EARLY.stop, len(whole)):
                rss_gb[i + 1] = memory_gb("VmRSS")
        for _ in frames:
            raise AssertionError("a frame past the budget")
    work_seconds += float(whole.sum())
    timings = utterance.timings
    whole[0] -= timings.prompt
    talker, predictor, codec = (np.array(part) for part in (timings.talker, timings.predictor, timings.codec))
    language = talker + predictor
    spent = np.maximum(language, codec) if tts.plan.threads.side_by_side else language + codec
    other = np.maximum(whole - spent, 0)  # the engine works ahead: the reader may wait less than a frame takes
    return _Run(
        n_prompt=timings.prompt_positions,
        n_reused=timings.prompt_reused,
        work_seconds=work_seconds,
        prefill_seconds=timings.prompt,
        seconds={"talker": talker, "predictor": predictor, "codec": codec, "other": other, "whole": whole},
        codes=utterance.codes,
        rss_gb=rss_gb,
    )


def _company(tts: TTS, voice: Voice | None, options: SpeechOptions) -> dict[str, int] | None:
    """Whether another speech in the same steps changes what is spoken."""
    if all(device.is_cpu for device in tts.engine.placement.devices.values()):
        return None
    options = replace(options, max_frames=min(_N_COMPANY, options.max_frames or _N_COMPANY))
    with tts.utter(TEXT, voice, options) as alone:
        alone.finish()
    with tts.utter(TEXT, voice, options) as shared, tts.utter(_OTHER_TEXT, voice, options) as other:
        for _ in zip(shared, other, strict=True):
            pass
    differs = np.flatnonzero((shared.codes != alone.codes).any(axis=1))
    n = len(alone.codes)
    return {"frames": n, "as_alone": int(differs[0]) if len(differs) else n}


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
