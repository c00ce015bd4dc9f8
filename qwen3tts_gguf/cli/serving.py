"""`qwen3tts serve`"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import OptionError
from .console import (
    DEFAULT_MODELS,
    CodecComputeOption,
    DeviceOption,
    MmprojOption,
    ModelOption,
    QuietOption,
    ThreadsOption,
    VoicesOption,
    amx_setting,
    model_or_nano,
    print_notes,
    read_text,
    stderr,
    voices_folder,
)
from .panels import MACHINE, VOICE, flag, value

if TYPE_CHECKING:
    from ..tts import TTS

__all__ = ["serve"]

KEY_ENVIRONMENT = "QWEN3TTS_API_KEY"
_SERVER = "Server"


def serve(
    context: typer.Context,
    model: ModelOption = DEFAULT_MODELS,
    mmproj: MmprojOption = None,
    host: Annotated[
        str, value("ADDRESS", _SERVER, "Address to listen on; 0.0.0.0 lets other machines in.", "--host")
    ] = "127.0.0.1",
    port: Annotated[int, value("N", _SERVER, "Port; 0 takes a free one.", "--port", min=0, max=65535)] = 8880,
    wyoming_port: Annotated[
        int | None,
        value(
            "N",
            _SERVER,
            "Port for Home Assistant (Wyoming protocol), often 10200. Default: none.",
            "--wyoming-port",
            min=0,
            max=65535,
        ),
    ] = None,
    preload: Annotated[
        bool, flag(_SERVER, "Load the model at the start instead of at the first request.", "--preload")
    ] = False,
    idle_unload: Annotated[
        float | None,
        value(
            "SECONDS",
            _SERVER,
            "Time without a request after which the model leaves memory. Default: never.",
            "--idle-unload",
        ),
    ] = None,
    lanes: Annotated[
        str,
        value(
            "N",
            _SERVER,
            "Number of speeches generated at once. auto: as many as this machine can do in real time.",
            "--lanes",
        ),
    ] = "auto",
    queue: Annotated[
        int, value("N", _SERVER, "Number of requests that may wait; further ones get status 429.", "--queue", min=0)
    ] = 16,
    max_input: Annotated[
        int, value("N", _SERVER, "Longest text of a request, in characters.", "--max-input", min=1)
    ] = 4096,
    voices: VoicesOption = None,
    alias: Annotated[
        list[str] | None,
        value("NAME=VOICE", VOICE, "Another name for a voice; may be given several times.", "--alias"),
    ] = None,
    no_voice_upload: Annotated[
        bool, flag(VOICE, "Do not let clients save or delete voices.", "--no-voice-upload")
    ] = False,
    api_key_file: Annotated[
        Path | None,
        value(
            "FILE",
            _SERVER,
            f"File with API keys, one per line. {KEY_ENVIRONMENT} in the environment is one more.",
            "--api-key-file",
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        value(
            "URL",
            _SERVER,
            "Origin of web pages that may use the server, or *; may be given several times.",
            "--cors-origin",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        value(
            "NAME",
            _SERVER,
            "Host name the server answers to, besides localhost; may be given several times.",
            "--allowed-host",
        ),
    ] = None,
    strict_model: Annotated[
        bool, flag(_SERVER, "Refuse requests that name a model the server does not list.", "--strict-model")
    ] = False,
    threads: ThreadsOption = None,
    device: DeviceOption = "cpu",
    codec_compute: CodecComputeOption = None,
    force: Annotated[bool, flag(MACHINE, "Load the model even if it seems too large for memory.", "--force")] = False,
    quiet: QuietOption = False,
) -> None:
    """Serve speech over HTTP, with OpenAI's API.

    The model is loaded by the first request and shared by all; nano is used if no model is found. Only programs on this
    machine can use the server, unless --host lets others in: then protect it with API keys.

    Examples:

      qwen3tts serve
      curl localhost:8880/v1/audio/speech -d '{"input": "Hello."}' -o hello.mp3

    The server needs: pip install 'qwen3tts-gguf\\[server]'
    """
    try:
        from ..server.app import create_app, run
        from ..server.guard import LOOPBACK_HOSTS
        from ..server.settings import Settings
    except ImportError as error:
        message = f"the server is not installed ({error.name} is missing)"
        raise OptionError(message, hint="pip install 'qwen3tts-gguf[server]'") from None

    from ..model import nano

    there = model_or_nano(model, context)
    path = nano.folder() if there is None else there
    is_local = _is_loopback(host)
    keys = _keys(api_key_file)
    settings = Settings(
        voices=voices_folder(voices),
        n_lanes=_n_lanes(lanes),
        n_queue=queue,
        max_input=max_input,
        uploads=not no_voice_upload,
        aliases=_aliases(alias or []),
        api_keys=keys,
        cors_origins=tuple(cors_origin or ()),
        allowed_hosts=(*LOOPBACK_HOSTS, host, *(allowed_host or ())) if is_local or allowed_host else (),
        strict_model=strict_model,
        idle_unload=idle_unload,
    )

    def load() -> TTS:
        from ..tts import TTS

        tts = TTS(
            path,
            mmproj=mmproj,
            n_threads=threads,
            n_lanes=settings.n_lanes,
            amx=amx_setting(),
            codec_type=codec_compute.value if codec_compute else "",
            device=device,
            check_memory=not force,
        )
        print_notes(tts.notes)
        return tts

    listener = _listener(host, port)
    wyoming = None if wyoming_port is None else _listener(host, wyoming_port, option="--wyoming-port")
    name = _model_name(path, mmproj)
    app = create_app(settings, load, model_name=name, version=_version(), preload=preload, wyoming=wyoming)
    if not is_local and not keys:
        stderr.print(
            f"warning: everyone who can reach {host} can use this server: set {KEY_ENVIRONMENT} or --api-key-file",
            soft_wrap=True,
        )
    if not quiet:
        _log_requests()
        bound_host, bound_port = listener.getsockname()[:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        stderr.print(
            f"{app.state.services.model_name} on http://{shown}:{bound_port} (documentation: /docs)", soft_wrap=True
        )
    run(app, listener)


def _model_name(path: Path, mmproj: Path | None) -> str:
    """As the file calls itself. Raises ModelFileError now for what could not be loaded later."""
    from ..model import nano
    from ..model.files import ModelFiles

    return ModelFiles(nano.resolved(path), mmproj).talker.name.lower().replace(" ", "-") or "qwen3-tts"


def _version() -> str:
    try:
        return importlib.metadata.version("qwen3tts-gguf")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "unknown"


def _listener(host: str, port: int, *, option: str = "--port") -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot listen on {host}, port {port} ({reason})"
        raise OptionError(message, hint=f"choose another with {option}, or another --host") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _n_lanes(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise OptionError(f"--lanes takes a number or auto, not {text!r}")
    return int(text)


def _aliases(pairs: list[str]) -> dict[str, str]:
    aliases = dict(pair.partition("=")[::2] for pair in pairs)
    if not all(name and voice for name, voice in aliases.items()):
        raise OptionError("--alias takes NAME=VOICE", hint="--alias alloy=anna")
    return aliases


def _keys(file: Path | None) -> tuple[str, ...]:
    lines = read_text(file).splitlines() if file is not None else []
    keys = [line.strip() for line in [*lines, os.environ.get(KEY_ENVIRONMENT, "")]]
    found = tuple(key for key in keys if key and not key.startswith("#"))
    if file is not None and not found:
        raise OptionError(f"{file}: there is no API key in this file")
    return found


def _log_requests() -> None:
    """One line per request on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name in ("qwen3tts_gguf.server", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
