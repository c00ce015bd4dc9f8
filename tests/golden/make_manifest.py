"""Write manifest.json: what llama.cpp's own converter makes of the tiny base checkpoint.

usage: PYTHON tests/golden/make_manifest.py LLAMA_CPP [--keep FOLDER]

PYTHON is an interpreter that has what llama.cpp's converter needs (torch, transformers, sentencepiece); LLAMA_CPP is a
source tree of llama.cpp. --keep leaves the GGUF files in FOLDER.

The manifest, which our converter is held to:

    {"llama_cpp": {"conversion/qwen3tts.py": sha256, "torch": version},
     "files": {"talker" | "mmproj": {outtype: {"tensors": [[name, shape in NumPy order, ggml type], ...],
                                               "keys": {key: {"type": ..., "value": ...}}}}}}

Tensors are in file order. An array of more than 16 elements has, in place of its value, its "length" and the "sha256"
of its JSON without spaces: json.dumps(value, ensure_ascii=False, separators=(",", ":")) in UTF-8.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import tiny

HERE = Path(__file__).resolve().parent

Json = dict[str, Any]

OUTTYPES = ("f32", "f16", "bf16", "q8_0")
LONGEST_ARRAY_SHOWN = 16


def load_converter(llama_cpp: Path) -> Any:
    """llama.cpp's converter as a module, told that our small vocabulary is split as Qwen2's.

    It tells the split pattern from the ids of a test sentence, which only the released vocabulary gives.
    """
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import conversion.base
    import convert_hf_to_gguf

    conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
    return convert_hf_to_gguf


def convert(converter: Any, checkpoint: Path, file: Path, kind: str, outtype: str) -> None:
    """Run the converter's command line in this process."""
    sys.argv = ["convert_hf_to_gguf.py", str(checkpoint), "--outfile", str(file), "--outtype", outtype]
    if kind == "mmproj":
        sys.argv.append("--mmproj")
    converter.main()


def describe(value: Any) -> Json:
    """The value, or length and digest of a long array."""
    if not isinstance(value, list) or len(value) <= LONGEST_ARRAY_SHOWN:
        return {"value": value}
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return {"length": len(value), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def contents(file: Path) -> Json:
    """Tensors and keys of a GGUF file."""
    import gguf

    reader = gguf.GGUFReader(file)
    tensors = [
        [tensor.name, [int(n) for n in reversed(tensor.shape)], tensor.tensor_type.name] for tensor in reader.tensors
    ]
    keys = {
        key: {"type": " of ".join(part.name.lower() for part in field.types), **describe(field.contents())}
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")  # the reader's own, for the header
    }
    return {"tensors": tensors, "keys": keys}


def manifest_text(manifest: Json) -> str:
    """JSON with one line for each tensor and key."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    lines: list[str] = []
    depth_of_leaf = 6  # files, kind, outtype, tensors or keys, the leaf
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        if indent >= depth_of_leaf or (indent == depth_of_leaf - 1 and line.strip() in ("]", "],", "}", "},")):
            lines[-1] += (" " if lines[-1].endswith(",") else "") + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write manifest.json with llama.cpp's converter.")
    parser.add_argument("llama_cpp", type=Path, help="source tree of llama.cpp")
    parser.add_argument("--keep", type=Path, help="folder to leave the GGUF files in")
    options = parser.parse_args()
    converter = load_converter(options.llama_cpp.resolve())
    source = options.llama_cpp / "conversion" / "qwen3tts.py"
    manifest: Json = {
        "llama_cpp": {
            "conversion/qwen3tts.py": hashlib.sha256(source.read_bytes()).hexdigest(),
            "torch": importlib.metadata.version("torch"),
        },
        "files": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = tiny.write_checkpoint(Path(scratch) / "tiny-base")
        for kind in ("talker", "mmproj"):
            manifest["files"][kind] = {}
            for outtype in OUTTYPES:
                file = folder / f"{'mmproj-' if kind == 'mmproj' else ''}tiny-base-{outtype}.gguf"
                convert(converter, checkpoint, file, kind, outtype)
                manifest["files"][kind][outtype] = contents(file)
    (HERE / "manifest.json").write_text(manifest_text(manifest), encoding="utf-8")


if __name__ == "__main__":
    main()
