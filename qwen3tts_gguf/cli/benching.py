"""`qwen3tts bench`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape
from rich.table import Table

from .console import (
    DEFAULT_MODELS,
    DeviceOption,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    amx_setting,
    printable,
    stdout,
)
from .expanded import expanded
from .panels import MACHINE, OUTPUT, TEXT, value
from .reporting import JsonFileOption, hand_out, picture, require_outputs, stages
from .speaking import LayoutOption, TextLayout
from .voice_options import VoiceOptions

if TYPE_CHECKING:
    from ..measure.benchmark import Report
    from ..tts import TTS
    from ..voice.voice import Voice

__all__ = ["bench"]

_REAL_TIME_MS = 80
_AMX_LOST = """\
This CPU has AMX, which this build of llama-cpp-python cannot fully use. This
command compiles one that can, in some minutes (docs/machines.md):
  CXXFLAGS="-fno-tree-dse -fno-dse" pip install --no-cache-dir \\
    --force-reinstall --no-deps --no-binary llama-cpp-python \\
    llama-cpp-python=={version}
"""
_COLORS = {"talker": "#4477aa", "predictor": "#66ccee", "codec": "#228833", "other": "#bbbbbb"}


@expanded
def bench(
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    frames: Annotated[
        int, value("N", TEXT, "Frames to speak, of 80 ms each; the end of speech is ignored.", "--frames", min=2)
    ] = 100,
    voice_options: VoiceOptions = VoiceOptions(),
    layout: LayoutOption = TextLayout.WHOLE,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    plan: Annotated[
        str,
        value(
            "ENTRIES",
            MACHINE,
            "Entries of the plan to change: talker=plain,predictor=repack. A wrong entry prints a "
            "list of all. Default: none.",
            "--plan",
            show_default=False,
        ),
    ] = "",
    json_file: JsonFileOption = None,
    plot: Annotated[
        Path | None, value("FILE", OUTPUT, "Picture of the time per frame: .png or .svg.", "--plot")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Measure how fast a model speaks on this machine.

    After a warm-up it speaks a fixed sentence for a fixed number of frames. RTF is seconds of work per second of
    speech; below 1 is faster than real time. Without --voice no voice is used, so that figures of different models are
    comparable.

    Examples:

      qwen3tts bench --model models
      qwen3tts bench --frames 24 --json bench.json

    A picture (--plot) needs: pip install 'qwen3tts-gguf\\[plot]'
    """
    require_outputs(json_file, plot)

    from ..measure.benchmark import measure, plain_voice

    def choose(tts: TTS) -> Voice | None:
        return voice_options.chosen(tts, quiet) or plain_voice(tts)

    report = measure(
        model,
        mmproj=mmproj,
        n_threads=threads,
        amx=amx_setting(),
        device=device,
        plan=plan,
        n_frames=frames,
        layout=layout.value,
        choose_voice=choose,
        on_stage=stages(quiet),
    )
    hand_out(report, json_file, lambda: _print(report))
    if plot is not None:
        _draw(report, plot)


# -- the table -------------------------------------------------------------------------------------------------------


def _print(report: Report) -> None:
    model, machine, voice, first = report["model"], report["machine"], report["voice"], report["first_audio"]
    prefill = report["prefill"]
    types = ", ".join(f"{part} {'+'.join(names)}" for part, names in model["types"].items())
    reference = f", {voice['reference_frames']} frames of reference" if voice["reference_frames"] else ""
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "model": model["name"],
        "types": types,
        "machine": f"{machine['cpu']}, {machine['cores']} cores, {_threads(report)}",
        **{f"{backend} uses": " ".join(names) for backend, names in machine["features"].items()},
        "versions": ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "voice": f"{voice['kind']}{reference}, layout {report['layout']}",
        "load": f"{report['load_seconds']:.2f} s",
        "prefill": f"{prefill['ms']:.0f} ms, {prefill['positions']} positions, {prefill['reused']} of them reused",
        "first sound, warm": f"{first['warm_ms']:.0f} ms",
        f"first sound, from {first['start']}": f"{first['from_start_seconds']:.2f} s",
        "peak memory": "unknown" if report["peak_rss_gb"] is None else f"{report['peak_rss_gb']:.2f} GB",
    }
    if report["voice_seconds"] >= 0.01:
        rows["making the voice"] = f"{report['voice_seconds']:.2f} s"
    if (long := report["long_run"]) is not None:
        rows["frame 100, last frames"] = f"{long['frame_100_ms']:.1f} ms, {long['last_ms']:.1f} ms"
    for name, row in rows.items():
        facts.add_row(name, escape(printable(row)))
    stdout.print(facts)
    stdout.print()
    _print_plan(report)

    parts = Table("ms per frame, frame by frame", box=None, padding=(0, 2, 0, 0))
    for column in ("median", "p10", "p90"):
        parts.add_column(column, justify="right")
    for part, spread in report["frame_ms"].items():
        parts.add_row(part, *(f"{spread[column]:.1f}" for column in ("median", "p10", "p90")))
    stdout.print(parts)
    stdout.print()
    stdout.print(
        f"RTF {report['rtf']:.2f}: {report['work_seconds']:.2f} s of work for {report['audio_seconds']:.2f} s of "
        f"speech ({report['frames']} frames) wanted whole; RTF {report['streamed']['rtf']:.2f} frame by frame",
        soft_wrap=True,
    )


def _print_plan(report: Report) -> None:
    plan = Table("plan", "", box=None, padding=(0, 2, 0, 0))
    for name, entry in report["plan"].items():
        plan.add_row(name, escape(printable(entry)))
    for net, device in report["placement"].items():
        plan.add_row(f"{net} on", escape(printable(device)))
    if (company := report["company"]) is not None:
        same, n = company["as_alone"], company["frames"]
        found = f"all {n} frames as alone" if same == n else f"the first {same} of {n} frames as alone"
        plan.add_row("with another speech", found)
    stdout.print(plan)
    stdout.print()
    for note in report["notes"]:
        stdout.print(printable(note), soft_wrap=True, markup=False)
    if report["amx_lost"]:
        stdout.print(_AMX_LOST.format(version=report["versions"]["llama-cpp-python"]), soft_wrap=True, markup=False)


def _threads(report: Report) -> str:
    shares = report["side_by_side"]
    split = f" ({shares[0]}, and {shares[1]} for the codec in parallel)" if shares else ""
    return f"threads: {report['threads']}{split}"


# -- the picture -----------------------------------------------------------------------------------------------------


def _draw(report: Report, plot: Path) -> None:
    """One frame as a stacked bar, next to the 80 ms it lasts; the codec's time below, where it works in parallel."""
    with picture(plot, inches=(8, 2.2)) as figure:
        axes = figure.add_subplot()
        left, longest = 0.0, 0.0
        for part, color in _COLORS.items():
            ms = report["frame_ms"][part]["median"]
            below = part == "codec" and report["side_by_side"] is not None
            axes.barh(-1 if below else 0, ms, left=0 if below else left, color=color, label=f"{part} {ms:.1f} ms")
            left += 0 if below else ms
            longest = max(longest, left, ms)
        axes.axvline(_REAL_TIME_MS, color="#cc3311", linestyle="--", label=f"real time: {_REAL_TIME_MS} ms")
        axes.set_xlim(0, 1.05 * max(longest, _REAL_TIME_MS))
        axes.set_yticks([])
        axes.set_xlabel("ms of one frame (medians)")
        types = "+".join(report["model"]["types"]["talker"])
        cpu = report["machine"]["cpu"]
        axes.set_title(
            f"{report['model']['name']}, {types}, RTF {report['rtf']:.2f} ({cpu}, {_threads(report)})", size=9
        )
        figure.legend(loc="outside lower center", ncols=len(_COLORS) + 1, frameon=False, fontsize=8)
