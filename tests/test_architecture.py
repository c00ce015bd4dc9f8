"""The layers in CONTRIBUTING.md: which module may import which, read from the source with `ast`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"qwen3tts_gguf": ROOT / "qwen3tts_gguf", "qwen3tts_convert": ROOT / "convert" / "qwen3tts_convert"}

# Top to bottom: a module imports only what stands in a lower row, so those of one row never import each other.
# A new module must be placed here. `cli.converting` imports qwen3tts_convert inside the command.
ROWS = (
    "qwen3tts_gguf.__main__",
    "qwen3tts_gguf.cli",
    "qwen3tts_gguf.cli.books  qwen3tts_gguf.cli.voices  qwen3tts_gguf.cli.benching  qwen3tts_gguf.cli.verifying",
    "qwen3tts_gguf.cli.batching",
    "qwen3tts_gguf.cli.batch_report",
    "qwen3tts_gguf.cli.speaking  qwen3tts_gguf.cli.codec  qwen3tts_gguf.cli.converting  qwen3tts_gguf.cli.inspecting"
    "  qwen3tts_gguf.cli.devices"
    "  qwen3tts_gguf.cli.serving",
    "qwen3tts_gguf.cli.speech_output",
    "qwen3tts_gguf.cli.line_files",
    "qwen3tts_gguf.cli.long_text",
    "qwen3tts_gguf.cli.live_input  qwen3tts_gguf.cli.reporting  qwen3tts_gguf.cli.sampling_options"
    "  qwen3tts_gguf.cli.sound_output  qwen3tts_gguf.cli.text_argument  qwen3tts_gguf.cli.voice_options",
    "qwen3tts_gguf.cli.console",
    "qwen3tts_gguf.cli.batch_options",
    "qwen3tts_gguf.cli.expanded  qwen3tts_gguf.cli.panels  qwen3tts_gguf.cli.wording",
    "qwen3tts_gguf",  # lazy: names for type checkers only
    "qwen3tts_gguf.server.app",
    "qwen3tts_gguf.server.openai_models  qwen3tts_gguf.server.voice_routes  qwen3tts_gguf.server.socket_routes"
    "  qwen3tts_gguf.server.elevenlabs_routes",
    "qwen3tts_gguf.server.speech_socket  qwen3tts_gguf.server.wyoming_server  qwen3tts_gguf.server.elevenlabs_socket",
    "qwen3tts_gguf.server.sockets  qwen3tts_gguf.server.speech_messages  qwen3tts_gguf.server.wyoming_events"
    "  qwen3tts_gguf.server.elevenlabs_messages  qwen3tts_gguf.server.elevenlabs_formats",
    "qwen3tts_gguf.server.conversation",
    "qwen3tts_gguf.server.openai_speech",
    "qwen3tts_gguf.server.answer",
    "qwen3tts_gguf.server.services",
    "qwen3tts_gguf.server.long_speech  qwen3tts_gguf.server.scheduler  qwen3tts_gguf.server.speech_fields",
    "qwen3tts_gguf.server.guard  qwen3tts_gguf.server.model  qwen3tts_gguf.server.voices"
    "  qwen3tts_gguf.server.encoding  qwen3tts_gguf.server.framing  qwen3tts_gguf.server.pace",
    "qwen3tts_gguf.server.docs_page  qwen3tts_gguf.server.metrics  qwen3tts_gguf.server.problems"
    "  qwen3tts_gguf.server.record  qwen3tts_gguf.server.settings  qwen3tts_gguf.server.arriving_text"
    "  qwen3tts_gguf.server.deadline",
    "qwen3tts_gguf.server",
    "qwen3tts_gguf.batch.cluster",
    "qwen3tts_gguf.batch.work  qwen3tts_gguf.batch.estimate",
    "qwen3tts_gguf.batch.shard",
    "qwen3tts_gguf.batch.project  qwen3tts_gguf.batch.speaker",
    "qwen3tts_gguf.batch.outputs  qwen3tts_gguf.batch.voices",
    "qwen3tts_gguf.batch.plan",
    "qwen3tts_gguf.batch.job  qwen3tts_gguf.batch.table",
    "qwen3tts_gguf.batch.storage",
    "qwen3tts_gguf.batch",
    "qwen3tts_gguf.measure.verification",
    "qwen3tts_gguf.measure.benchmark  qwen3tts_gguf.measure.summary",
    "qwen3tts_gguf.measure.machine  qwen3tts_gguf.measure.inspection",
    "qwen3tts_gguf.measure",
    "qwen3tts_gguf.book.production",
    "qwen3tts_gguf.book.shelf",
    "qwen3tts_gguf.book.chapters  qwen3tts_gguf.book.naming  qwen3tts_gguf.book.settings",
    "qwen3tts_gguf.book.m4b",
    "qwen3tts_gguf.book.epub  qwen3tts_gguf.book.plain  qwen3tts_gguf.book.tagging  qwen3tts_gguf.book.workplace",
    "qwen3tts_gguf.book.archive  qwen3tts_gguf.book.page",
    "qwen3tts_gguf.book.contents  qwen3tts_gguf.book.encoding",
    "qwen3tts_gguf.book",
    "qwen3tts_gguf.digests  qwen3tts_gguf.reading",
    "qwen3tts_gguf.tts",
    "qwen3tts_gguf.engine.utterance  qwen3tts_gguf.engine.forced",
    "qwen3tts_gguf.engine.engine",
    "qwen3tts_gguf.engine.codec_stage",
    "qwen3tts_gguf.engine.lane  qwen3tts_gguf.engine.plan",
    "qwen3tts_gguf.engine.mailbox  qwen3tts_gguf.engine.threads  qwen3tts_gguf.engine.placement",
    "qwen3tts_gguf.engine",
    "qwen3tts_gguf.voice.compatibility  qwen3tts_gguf.voice.store  qwen3tts_gguf.voice.shipped",
    "qwen3tts_gguf.voice.encoder  qwen3tts_gguf.voice.cache",
    "qwen3tts_gguf.voice.voice",
    "qwen3tts_gguf.voice.clip  qwen3tts_gguf.voice.file",
    "qwen3tts_gguf.voice",
    "qwen3tts_gguf.speech.spoken",
    "qwen3tts_gguf.speech.prompt  qwen3tts_gguf.speech.script",
    "qwen3tts_gguf.speech.feeding  qwen3tts_gguf.speech.live_prompt  qwen3tts_gguf.speech.passages",
    "qwen3tts_gguf.speech.pace  qwen3tts_gguf.speech.live_text",
    "qwen3tts_gguf.speech.edges  qwen3tts_gguf.speech.options  qwen3tts_gguf.speech.runaway  qwen3tts_gguf.speech.text",
    "qwen3tts_gguf.speech",
    "qwen3tts_gguf.nets.talker  qwen3tts_gguf.nets.code_predictor  qwen3tts_gguf.nets.codec_decoder"
    "  qwen3tts_gguf.nets.codec_encoder  qwen3tts_gguf.nets.speaker_encoder",
    "qwen3tts_gguf.nets.codec_graphs  qwen3tts_gguf.nets.predictor_graph  qwen3tts_gguf.nets.talker_memory",
    "qwen3tts_gguf.nets.codec_state  qwen3tts_gguf.nets.codec_weights",
    "qwen3tts_gguf.nets.causal  qwen3tts_gguf.nets.graph_sampler  qwen3tts_gguf.nets.predictor_layers",
    "qwen3tts_gguf.nets.layers  qwen3tts_gguf.nets.talker_context",
    "qwen3tts_gguf.nets.codec_layout  qwen3tts_gguf.nets.codes  qwen3tts_gguf.nets.mel"
    "  qwen3tts_gguf.nets.sampling  qwen3tts_gguf.nets.talker_model  qwen3tts_gguf.nets.widths"
    "  qwen3tts_gguf.nets.winograd",
    "qwen3tts_gguf.nets",
    "qwen3tts_gguf.audio_player",
    "qwen3tts_gguf.audio  qwen3tts_gguf.audio_sink  qwen3tts_gguf.audio_speed  qwen3tts_gguf.subtitles",
    "qwen3tts_convert",
    "qwen3tts_convert.conversion",
    "qwen3tts_convert.keys  qwen3tts_convert.writer",
    "qwen3tts_convert.checkpoint  qwen3tts_convert.quantize",
    "qwen3tts_convert.code_predictor",
    "qwen3tts_convert.talker  qwen3tts_convert.codec  qwen3tts_convert.speaker_encoder  qwen3tts_convert.tokenizer"
    "  qwen3tts_convert.hub",
    "qwen3tts_convert.sources  qwen3tts_convert.section",
    "qwen3tts_convert.weights",
    "qwen3tts_gguf.model.integrity  qwen3tts_gguf.model.footprint",
    "qwen3tts_gguf.model.files  qwen3tts_gguf.model.tokenizer  qwen3tts_gguf.model.vocabulary",
    "qwen3tts_gguf.model.llama_contract",
    "qwen3tts_gguf.model.gguf_file",
    "qwen3tts_gguf.model.geometry  qwen3tts_gguf.model.nano  qwen3tts_gguf.model.tensor_groups",
    "qwen3tts_gguf.model.schema",
    "qwen3tts_gguf.model.sampling_defaults",
    "qwen3tts_gguf.model",
    "qwen3tts_gguf.ggml.slots  qwen3tts_gguf.ggml.trial",
    "qwen3tts_gguf.ggml.trial_products",
    "qwen3tts_gguf.ggml.graph  qwen3tts_gguf.ggml.machine",
    "qwen3tts_gguf.ggml.computation",
    "qwen3tts_gguf.ggml.device  qwen3tts_gguf.ggml.rows",
    "qwen3tts_gguf.ggml.devices",
    "qwen3tts_gguf.ggml.api  qwen3tts_gguf.ggml.finite",
    "qwen3tts_gguf.ggml.library",
    "qwen3tts_gguf.ggml.types",
    "qwen3tts_gguf.ggml",
    "qwen3tts_gguf.cgroups  qwen3tts_gguf.container  qwen3tts_gguf.errors  qwen3tts_gguf.freed_memory"
    "  qwen3tts_gguf.handover"
    "  qwen3tts_gguf.whole_file"
    "  qwen3tts_gguf.measure.agreement  qwen3tts_gguf.measure.verdict",
)
LEVELS = {module: -row for row, modules in enumerate(ROWS) for module in modules.split()}

# What of qwen3tts_gguf the converter may use.
OPEN_TO_CONVERT = {
    f"qwen3tts_gguf.{name}"
    for name in (
        "model.schema",
        "model.geometry",
        "model.sampling_defaults",
        "model.tensor_groups",
        "errors",
        "whole_file",
        "ggml.types",
        "ggml.rows",
    )
}

# What ggml/ may use besides itself.
OPEN_TO_GGML = {"qwen3tts_gguf.errors", "qwen3tts_gguf.whole_file"}

CLI = ("qwen3tts_gguf.cli", "qwen3tts_gguf.cli.")

# Packages of others, and the only modules (or packages, with a dot at the end) that import them.
HOMES = {
    "llama_cpp": (
        "qwen3tts_gguf.nets.talker_context",
        "qwen3tts_gguf.nets.talker_model",
        "qwen3tts_gguf.ggml.library",
    ),
    "soundfile": ("qwen3tts_gguf.audio", "qwen3tts_gguf.audio_sink", "qwen3tts_gguf.server.encoding"),
    "pysubs2": ("qwen3tts_gguf.subtitles",),
    "sounddevice": ("qwen3tts_gguf.audio_player",),
    "sentencex": ("qwen3tts_gguf.speech.passages",),
    "soxr": ("qwen3tts_gguf.audio", "qwen3tts_gguf.server.elevenlabs_formats"),
    "psutil": ("qwen3tts_gguf.model.footprint",),
    "tokenizers": ("qwen3tts_gguf.model.tokenizer",),
    "typer": CLI,
    "click": CLI,
    "rich": CLI,
    "platformdirs": (*CLI, "qwen3tts_gguf.ggml.trial", "qwen3tts_gguf.voice.cache"),
    "safetensors": ("qwen3tts_convert.", "qwen3tts_gguf.voice.file", "qwen3tts_gguf.book.workplace"),
    "gguf": ("qwen3tts_convert.",),
    "huggingface_hub": ("qwen3tts_convert.hub",),
    "fastapi": ("qwen3tts_gguf.server.",),
    "starlette": ("qwen3tts_gguf.server.",),
    "pydantic": ("qwen3tts_gguf.server.",),
    "uvicorn": ("qwen3tts_gguf.server.",),
    "prometheus_client": ("qwen3tts_gguf.server.",),
    "wyoming": ("qwen3tts_gguf.server.wyoming_server", "qwen3tts_gguf.server.wyoming_events"),
    "av": ("qwen3tts_gguf.book.m4b", "qwen3tts_gguf.server.encoding"),
    "mutagen": ("qwen3tts_gguf.book.m4b", "qwen3tts_gguf.book.tagging"),
    "matplotlib": ("qwen3tts_gguf.cli.reporting",),
    "pyarrow": ("qwen3tts_gguf.batch.table", "qwen3tts_gguf.batch.outputs"),
    "fsspec": ("qwen3tts_gguf.batch.storage",),
    "ray": ("qwen3tts_gguf.batch.cluster",),
    "torch": (),
}

# What only the command line may do.
FOR_CLI_ONLY = {"print", "input", "exit", "sys.exit", "sys.argv", "sys.stdout", "sys.stderr", "os.environ", "os.getenv"}


def modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name; a package has its folder's name."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str) -> Iterator[str]:
    """Everything a module imports anywhere in its source: our own as whole modules, others by dotted name."""
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            home = ".".join([*base, *(node.module.split(".") if node.module else [])])
            for alias in node.names:  # from . import x: x is a module, or a name of the package
                yield f"{home}.{alias.name}" if f"{home}.{alias.name}" in MODULES else home


def spoken(node: ast.AST) -> str:
    """`print`, `sys.exit`: a plain or once dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def test_every_module_has_its_place_and_every_place_a_module() -> None:
    assert sorted(LEVELS) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_strictly_down(module: str) -> None:
    ours = {name for name in imports(module) if name in MODULES}
    upward = sorted(name for name in ours if LEVELS[name] >= LEVELS[module])
    assert not upward, f"{module} imports {upward}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("qwen3tts_gguf.nets.")])
def test_nets_share_only_what_several_are_made_of(module: str) -> None:
    siblings = {name for name in imports(module) if name.startswith("qwen3tts_gguf.nets.")}
    boxes = ("talker", "code_predictor", "codec_decoder", "codec_encoder", "speaker_encoder")
    assert not siblings & {f"qwen3tts_gguf.nets.{box}" for box in boxes}


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("qwen3tts_gguf.ggml.")])
def test_ggml_knows_nothing_of_speech(module: str) -> None:
    ours = {name for name in imports(module) if name in MODULES}
    assert all(name.startswith("qwen3tts_gguf.ggml") or name in OPEN_TO_GGML for name in ours)


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("qwen3tts_convert")])
def test_the_converter_uses_the_contract_and_the_quantizer_only(module: str) -> None:
    assert {name for name in imports(module) if name.startswith("qwen3tts_gguf")} <= OPEN_TO_CONVERT


def test_only_the_command_line_imports_the_converter() -> None:
    inside = {name for name in MODULES if any(target.startswith("qwen3tts_convert") for target in imports(name))}
    assert {name for name in inside if name.startswith("qwen3tts_gguf")} == {"qwen3tts_gguf.cli.converting"}


@pytest.mark.parametrize("package", HOMES)
def test_packages_of_others_are_imported_where_they_belong(package: str) -> None:
    found = {module for module in MODULES if any(name.split(".")[0] == package for name in imports(module))}
    homes = HOMES[package]
    strays = {m for m in found if not any(m == home or (home.endswith(".") and m.startswith(home)) for home in homes)}
    assert not strays


@pytest.mark.parametrize("module", [name for name in MODULES if not f"{name}.".startswith(CLI[1])])
def test_only_the_command_line_prints_exits_or_reads_the_environment(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not {spoken(node) for node in ast.walk(tree)} & FOR_CLI_ONLY
