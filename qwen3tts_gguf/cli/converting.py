"""`qwen3tts convert`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from .console import DEFAULT_MODELS, QuietOption, print_notes, progress, stdout
from .panels import MODEL, OUTPUT, value

__all__ = ["convert"]


def _types(incomplete: str) -> list[str]:
    from qwen3tts_convert.quantize import TYPES

    return [name for name in TYPES if name.startswith(incomplete)]


def convert(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="Folder of a checkpoint, or its id on the Hugging Face hub: Qwen/Qwen3-TTS-..."
        ),
    ],
    type: Annotated[
        str,
        value(
            "TYPE",
            MODEL,
            "Type of the talker's and code predictor's weights: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0.",
            "--type",
            autocompletion=_types,
        ),
    ] = "q8_0",
    codec_type: Annotated[
        str, value("TYPE", MODEL, "Type of the codec's weights: f16, or f32 (larger).", "--codec-type")
    ] = "f16",
    revision: Annotated[
        str | None, value("REVISION", MODEL, "Branch, tag or commit on the hub. Default: main.", "--revision")
    ] = None,
    out: Annotated[Path, value("FOLDER", OUTPUT, "Folder for the two files.", "--out", "-o")] = DEFAULT_MODELS,
    name: Annotated[
        str | None, value("NAME", OUTPUT, "Name of the files. Default: the checkpoint's name.", "--name")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Convert a Hugging Face checkpoint into a pair of GGUF files.

    It writes FOLDER/NAME-TYPE.gguf (the talker) and FOLDER/mmproj-NAME-TYPE.gguf (code predictor, codec, speaker
    encoder). q8_0 stays closest to the original; q4_0 and q4_k_m are faster and smaller.

    Examples:

      qwen3tts convert Qwen/Qwen3-TTS-12Hz-0.6B-Base
      qwen3tts convert ./my-checkpoint --type q4_0 -o models

    A hub id is downloaded, which needs: pip install 'qwen3tts-gguf\\[hub]'. Nothing else ever uses the network.
    """
    from qwen3tts_convert import convert as convert_checkpoint

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with progress(*columns, quiet=quiet) as bar:
        task = bar.add_task("reading", total=None)
        pair = convert_checkpoint(
            checkpoint,
            out,
            type=type,
            codec_type=codec_type,
            name=name,
            revision=revision,
            on_progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    print_notes(pair.notes)
    for path in (pair.talker, pair.mmproj):
        stdout.print(str(path), soft_wrap=True)
