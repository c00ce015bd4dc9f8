"""`qwen3tts voice`: saved voices, shipped voices, and the cache of these."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ..errors import OptionError, VoiceError
from .console import (
    DEFAULT_MODELS,
    DeviceOption,
    JsonOption,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    VoicesOption,
    amx_setting,
    model_or_nano,
    print_json,
    print_notes,
    stderr,
    stdout,
    voices_folder,
)
from .expanded import expanded
from .panels import VOICE, App, flag, value
from .voice_options import ENVIRONMENT, ClipOptions, known_voices

if TYPE_CHECKING:
    from ..voice.cache import VoiceCache
    from ..voice.shipped import ShippedVoice
    from ..voice.voice import Voice

__all__ = ["app"]

app = App(help="Save, list, show, mix and delete voices.")

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the voice: letters, digits, spaces, dots, dashes, underscores.",
        autocompletion=known_voices,
    ),
]
ForceOption = Annotated[bool, flag(VOICE, "Replace a saved voice of the same name.", "--force")]


@app.command()
@expanded
def create(
    name: NameArgument,
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="Audio file with 3 to 15 s of one speaker: wav, flac, ogg, mp3.")
    ],
    clip_options: ClipOptions,
    language: Annotated[
        str | None,
        value("LANGUAGE", VOICE, "Language that the voice speaks if none is given later.", "--language", "-l"),
    ] = None,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voices: VoicesOption = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Save the voice of a clip under a name.

    Speech with a saved voice starts sooner, because the clip is not encoded again. Its codes work with the 0.6B and the
    1.7B, its speaker vector only with models of the size it was made with.

    Examples:

      qwen3tts voice create anna ref.wav --ref-text "Words spoken in ref.wav."
      qwen3tts speak "Good morning." --voice anna
    """
    from ..tts import TTS
    from ..voice.store import VoiceStore

    store = VoiceStore(voices_folder(voices))
    store.require_free(name, overwrite=force)
    tts = TTS(model, mmproj=mmproj, n_threads=threads, amx=amx_setting(), device=device)
    print_notes(tts.notes)
    if language is not None:
        tts.vocabulary.language_id(language)
    voice = clip_options.voice(clip, tts, quiet)
    path = store.save(name, replace(voice, language=language), overwrite=force)
    if not quiet:
        stderr.print(f"{name!r} saved in {path}", soft_wrap=True, markup=False)


@app.command("list")
def list_voices(
    context: typer.Context,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voices: VoicesOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the saved and the shipped voices that a model can use.

    `speak --voice NAME` takes any of them. A shipped voice is encoded when it is first used; the result is cached, and
    the last line of the list shows where.

    Example:

      qwen3tts voice list --model models
    """
    from ..voice.cache import VoiceCache
    from ..voice.store import VoiceStore

    store, shipped = VoiceStore(voices_folder(voices)), _shipped(context, model, mmproj)
    default = os.environ.get(ENVIRONMENT) or next(iter(shipped), "") if shipped else ""
    reports = []
    for name in store.names():
        try:
            reports.append({"name": name, **_saved_report(store.load(name))})
        except VoiceError as error:  # one damaged file hides no other voice
            stderr.print(f"warning: {error}", soft_wrap=True, markup=False)
    saved = {report["name"] for report in reports}
    reports += [_shipped_report(voice) for name, voice in shipped.items() if name not in saved]
    for report in reports:
        report["default"] = report["name"] == default
    if as_json:
        print_json(reports)
        return
    if not saved:
        stderr.print(f"no saved voices in {store.folder}", soft_wrap=True, markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
    for column in ("name", "kind", "voice"):
        table.add_column(column, no_wrap=True)
    table.add_column("transcript", no_wrap=True, overflow="ellipsis", ratio=1)
    for report in reports:
        kind = report["kind"] + (", default" if report["default"] else "")
        words = report["transcript"] or report.get("instruct") or "-"
        cells = report["name"], kind, _described(report), words
        table.add_row(*map(escape, cells))
    if reports:
        stdout.print(table)
    stdout.print(_described_cache(VoiceCache.of_user()), soft_wrap=True, markup=False)


@app.command()
def show(
    context: typer.Context,
    name: NameArgument,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    voices: VoicesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known about a voice, saved or shipped.

    This is where it comes from, its transcript, its language and its size.

    Example:

      qwen3tts voice show mika
    """
    from ..voice.shipped import shipped_voices
    from ..voice.store import VoiceStore

    store = VoiceStore(voices_folder(voices))
    shipped = {} if store.path(name).is_file() else {**shipped_voices(""), **_shipped(context, model, mmproj)}
    if name in shipped:
        report = _shipped_report(shipped[name])
    else:
        report = {"name": name, "path": str(store.path(name)), **_saved_report(store.load(name))}
    if as_json:
        print_json(report)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, known in report.items():
        table.add_row(key, "-" if known in (None, "", 0) else escape(str(known)))
    stdout.print(table)


@app.command("cache")
def show_cache(
    clear: Annotated[
        bool, flag(VOICE, "Delete the cache. Shipped voices are encoded again when they are next used.", "--clear")
    ] = False,
) -> None:
    """Show where the cache of the shipped voices is and how large, or clear it.

    A shipped voice is encoded once for each codec and speaker encoder, and read from the cache afterwards.

    Example:

      qwen3tts voice cache --clear
    """
    from ..voice.cache import VoiceCache

    cache = VoiceCache.of_user()
    if clear:
        cache.clear()
    stdout.print(_described_cache(cache), soft_wrap=True, markup=False)


@app.command()
def delete(name: NameArgument, voices: VoicesOption = None) -> None:
    """Delete a saved voice.

    Voices that are shipped with the package cannot be deleted.

    Example:

      qwen3tts voice delete anna
    """
    from ..voice.shipped import shipped_voices
    from ..voice.store import VoiceStore

    store = VoiceStore(voices_folder(voices))
    if name in shipped_voices("") and not store.path(name).is_file():
        raise VoiceError(f"{name!r} is shipped with the package and cannot be deleted")
    store.delete(name)


@app.command()
def mix(
    names: Annotated[
        list[str], typer.Argument(metavar="NAMES", help="Two or more saved voices.", autocompletion=known_voices)
    ],
    output: Annotated[str, value("NAME", VOICE, "Name of the new voice.", "--output", "-o")],
    weights: Annotated[
        str | None,
        value("LIST", VOICE, "Share of each voice: 0.7,0.3 or 70%,30%. Default: equal shares.", "--weights"),
    ] = None,
    voices: VoicesOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Mix voices into a new one: the weighted mean of their speaker vectors.

    Codes and transcripts cannot be mixed. The new voice has a speaker vector only.

    Example:

      qwen3tts voice mix anna ben --weights 70%,30% -o annaben
    """
    from ..voice.store import VoiceStore
    from ..voice.store import mix as mixed

    store = VoiceStore(voices_folder(voices))
    kept = [store.load(name) for name in names]
    path = store.save(output, mixed(kept, _shares(weights, len(kept))), overwrite=force)
    if any(voice.codes is not None for voice in kept) and not quiet:
        stderr.print("codes and transcripts were left out: only speaker vectors can be mixed", soft_wrap=True)
    if not quiet:
        stderr.print(f"{output!r} saved in {path}", soft_wrap=True, markup=False)


def _shares(weights: str | None, n: int) -> list[float]:
    """Numbers or percentages with commas between; all the same if None. Raises OptionError."""
    if weights is None:
        return [1.0] * n
    try:
        return [_share(weight.strip()) for weight in weights.split(",")]
    except ValueError:
        raise OptionError(f"--weights takes numbers separated by commas, not {weights!r}") from None


def _share(weight: str) -> float:
    return float(weight[:-1]) / 100 if weight.endswith("%") else float(weight)


# -- reports -----------------------------------------------------------------------------------------------------------


def _shipped(context: typer.Context, model: Path, mmproj: Path | None) -> dict[str, ShippedVoice]:
    """Of the model that `speak` would take with these options; of any Base model where there is more than one to choose
    from. Raises ModelFileError."""
    from ..model import nano
    from ..model.files import ModelFiles
    from ..voice.compatibility import BASE
    from ..voice.shipped import shipped_voices

    asked = model_or_nano(model, context)
    if asked is None:
        return shipped_voices(nano.NAME)
    if len([file for file in asked.glob("*.gguf") if not file.name.startswith("mmproj-")]) > 1:
        return shipped_voices("")
    files = ModelFiles(asked, mmproj)
    clones = files.talker.model_type in ("", BASE) and files.mmproj.speaker_encoder is not None
    return shipped_voices(files.talker.name) if clones else {}


def _saved_report(voice: Voice) -> dict[str, Any]:
    return {
        "kind": "saved",
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


def _shipped_report(voice: ShippedVoice) -> dict[str, Any]:
    return {
        "name": voice.name,
        "kind": "shipped",
        "sex": voice.sex,
        "accent": voice.accent,
        "origin": voice.origin,
        "language": None,
        "transcript": voice.transcript,
        "clip": str(voice.clip),
    }


def _described(report: dict[str, Any]) -> str:
    """What a voice is, in a few words."""
    if report["kind"] == "shipped":
        return f"{report['sex']}, {report['accent']} accent"
    reference = [f"codes of {report['frames'] * 0.08:.1f} s"] if report["frames"] else []
    vector = [f"vector of {report['speaker_values']}"] if report["speaker_values"] else []
    preset = [f"preset {report['preset']}"] if report["preset"] else []
    language = [report["language"]] if report["language"] else []
    return ", ".join(reference + vector + preset + language) or "description"


def _described_cache(cache: VoiceCache) -> str:
    if cache.folder is None:
        return "cache of shipped voices: none, the system names no folder for it"
    n, size = len(cache.files()), f"{cache.n_bytes() / 1000:.0f} kB"
    return f"cache of shipped voices: {cache.folder} ({n} {'file' if n == 1 else 'files'}, {size})"
