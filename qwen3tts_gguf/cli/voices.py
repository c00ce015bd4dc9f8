"""`qwen3tts voice`: saved voices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import OptionError, VoiceError
from .console import (
    DEFAULT_MODELS,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    VoicesOption,
    amx_setting,
    print_json,
    stderr,
    stdout,
    voices_folder,
)
from .expanded import expanded
from .voice_options import ClipOptions

if TYPE_CHECKING:
    from ..voice.voice import Voice

__all__ = ["app"]

app = typer.Typer(help="Save voices under a name.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Letters, digits, spaces, . - _")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Over an older voice of that name.")]


@app.command()
@expanded
def create(
    name: NameArgument,
    clip: Annotated[Path, typer.Argument(help="3 to 15 s of one speaker; any format libsndfile reads.")],
    clip_options: ClipOptions,
    language: Annotated[str | None, typer.Option("--language", "-l", help="Spoken when none is asked for.")] = None,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voices: VoicesOption = None,
    threads: ThreadsOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Save the voice of a clip under a name.

    Speaking with a saved voice starts faster: the encoders are not loaded. Its codes fit models of either size, its
    speaker vector only those of the size that made it.
    """
    from ..tts import TTS
    from ..voice.store import VoiceStore

    store = VoiceStore(voices_folder(voices))
    store.require_free(name, overwrite=force)
    tts = TTS(model, mmproj=mmproj, n_threads=threads, amx=amx_setting())
    if language is not None:
        tts.vocabulary.language_id(language)
    voice = clip_options.voice(clip, tts, quiet)
    path = store.save(name, replace(voice, language=language), overwrite=force)
    if not quiet:
        stderr.print(f"{name!r} saved in {path}", soft_wrap=True, markup=False)


@app.command("list")
def list_voices(voices: VoicesOption = None, as_json: JsonOption = False) -> None:
    """List the saved voices."""
    from ..voice.store import VoiceStore

    store = VoiceStore(voices_folder(voices))
    reports = []
    for name in store.names():
        try:
            reports.append({"name": name, **_report(store.load(name))})
        except VoiceError as error:  # one damaged file hides no other voice
            stderr.print(f"warning: {error}", soft_wrap=True, markup=False)
    if as_json:
        print_json(reports)
        return
    if not reports:
        stderr.print(f"no voices in {store.folder}", soft_wrap=True, markup=False)
        return
    table = Table("name", "speaker vector", "reference", "language", "says", box=None, padding=(0, 2, 0, 0))
    for voice in reports:
        reference = f"{voice['frames'] * 0.08:.1f} s" if voice["frames"] else "-"
        says = voice["transcript"] or voice["instruct"] or "-"
        cells = voice["name"], str(voice["speaker_values"] or "-"), reference, voice["language"] or "auto", says
        table.add_row(*map(escape, cells))
    stdout.print(table)


@app.command()
def show(name: NameArgument, voices: VoicesOption = None, as_json: JsonOption = False) -> None:
    """Show what is saved of a voice."""
    from ..voice.store import VoiceStore

    store = VoiceStore(voices_folder(voices))
    report = {"name": name, "path": str(store.path(name)), **_report(store.load(name))}
    if as_json:
        print_json(report)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in report.items():
        table.add_row(key, "-" if value in (None, "", 0) else escape(str(value)))
    stdout.print(table)


@app.command()
def delete(name: NameArgument, voices: VoicesOption = None) -> None:
    """Delete a voice."""
    from ..voice.store import VoiceStore

    VoiceStore(voices_folder(voices)).delete(name)


@app.command()
def mix(
    names: Annotated[list[str], typer.Argument(help="Two voices or more.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The name of the mixture.")],
    weights: Annotated[
        str | None, typer.Option(help="One per voice: 0.7,0.3 or 70%,30%. Default: the same for all.")
    ] = None,
    voices: VoicesOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a voice between voices: the mean of their speaker vectors.

    Codes and transcripts, which make in-context cloning, cannot be mixed and are left out.
    """
    from ..voice.store import VoiceStore
    from ..voice.store import mix as mixed

    store = VoiceStore(voices_folder(voices))
    kept = [store.load(name) for name in names]
    path = store.save(output, mixed(kept, _shares(weights, len(kept))), overwrite=force)
    if any(voice.codes is not None for voice in kept) and not quiet:
        stderr.print("the voices' codes and transcripts were left out: only speaker vectors mix", soft_wrap=True)
    if not quiet:
        stderr.print(f"{output!r} saved in {path}", soft_wrap=True, markup=False)


def _shares(weights: str | None, n: int) -> list[float]:
    """Numbers or percentages with commas between; all the same if None. Raises OptionError."""
    if weights is None:
        return [1.0] * n
    try:
        return [_share(weight.strip()) for weight in weights.split(",")]
    except ValueError:
        raise OptionError(f"--weights takes numbers with commas between, not {weights!r}") from None


def _share(weight: str) -> float:
    return float(weight[:-1]) / 100 if weight.endswith("%") else float(weight)


def _report(voice: Voice) -> dict[str, Any]:
    return {
        "speaker_values": 0 if voice.speaker is None else voice.speaker.size,
        "frames": 0 if voice.codes is None else len(voice.codes),
        "transcript": voice.transcript,
        "preset": voice.preset_name,
        "instruct": voice.instruct,
        "language": voice.language,
        "codec": voice.codec,
        "speaker_encoder": voice.speaker_encoder,
        "clip_sha256": voice.clip_sha256,
        "clip_rate_hz": voice.clip_rate_hz or None,
    }
