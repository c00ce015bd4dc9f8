"""`qwen3tts codec`: audio to codes and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import (
    DEFAULT_MODELS,
    DeviceOption,
    ModelOption,
    OutputOption,
    QuietOption,
    ThreadsOption,
    amx_setting,
    output_target,
    print_notes,
    progress,
    require_npy,
    save_array,
    stderr,
)
from .panels import OUTPUT, App, value

__all__ = ["app"]

app = App(help="Turn audio into codec codes, and codes into audio.")


@app.command()
def encode(
    audio: Annotated[Path, typer.Argument(metavar="AUDIO", help="Audio file: wav, flac, ogg, mp3.")],
    model: ModelOption = DEFAULT_MODELS,
    output: Annotated[Path, value("FILE", OUTPUT, "Codes: .npy, int32, frames x 16.", "--output", "-o")] = Path(
        "codes.npy"
    ),
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
) -> None:
    """Turn audio into codec codes: sixteen per frame of 80 ms.

    `codec decode` turns them back into audio.

    Example:

      qwen3tts codec encode speech.wav -o codes.npy
    """
    from ..audio import read_audio
    from ..engine.placement import require_device
    from ..engine.threads import default_threads
    from ..model.files import MmprojFile, find_mmproj
    from ..voice.encoder import VoiceEncoder

    require_npy(output)
    encoder = VoiceEncoder(MmprojFile(find_mmproj(model)), threads or default_threads(), require_device(device))
    codes = encoder.encode_codes(read_audio(audio))
    print_notes(encoder.notes)
    save_array(output, codes)
    if not quiet:
        stderr.print(f"{len(codes)} frames -> {output}", soft_wrap=True, markup=False)


@app.command()
def decode(
    codes: Annotated[Path, typer.Argument(metavar="CODES", help="Codes: .npy, integers, frames x 16.")],
    model: ModelOption = DEFAULT_MODELS,
    output: OutputOption = Path("decoded.wav"),
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    quiet: QuietOption = False,
) -> None:
    """Turn codec codes into audio.

    It reads what `speak --codes` and `codec encode` save.

    Example:

      qwen3tts codec decode codes.npy -o decoded.wav
    """
    target = output_target(output)

    from ..audio_sink import open_sink
    from ..engine.placement import load_on
    from ..engine.plan import Plan
    from ..ggml.device import Backend
    from ..ggml.devices import Device
    from ..model.files import MmprojFile, find_mmproj
    from ..nets.codec_decoder import CodecDecoder
    from ..nets.codes import read_codes

    plan = Plan.for_this_machine(threads, amx=amx_setting())  # rounds as `speak` does
    file = MmprojFile(find_mmproj(model))

    def load(where: Device) -> CodecDecoder:
        return CodecDecoder(file, Backend(plan.threads.all, device=where), plan.codec_on(where))

    decoder, notes = load_on(device, load)
    print_notes(notes)
    frames = read_codes(codes, decoder.config.codebook_size)
    state = decoder.new_state()
    with open_sink(target) as sink, progress(quiet=quiet) as bar:
        for frame in bar.track(frames, description="decoding"):
            sink.write(decoder.decode([(state, frame[None])])[0])
