"""`qwen3tts convert`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn

from .console import DEFAULT_MODELS, QuietOption, print_notes, progress, stdout

__all__ = ["convert"]


def convert(
    checkpoint: Annotated[str, typer.Argument(help="A folder, or a hub id: Qwen/Qwen3-TTS-12Hz-0.6B-Base.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the pair goes.")] = DEFAULT_MODELS,
    type: Annotated[str, typer.Option(help="f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m or q4_0.")] = "q8_0",
    codec_type: Annotated[str, typer.Option(help="f16, or f32: exact, larger, slower.")] = "f16",
    name: Annotated[str | None, typer.Option(help="The files' name. Default: the checkpoint's.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Turn a Hugging Face checkpoint into a pair of GGUF files.

    Writes OUT/<name>-<TYPE>.gguf (the talker) and OUT/mmproj-<name>-<TYPE>.gguf (code predictor, codec, speaker
    encoder). q8_0 keeps what the model says; q4_0 and q4_k_m are faster and smaller.

    A hub id is the only thing that is ever fetched from a network; it needs: pip install 'qwen3tts-gguf\\[hub]'
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
