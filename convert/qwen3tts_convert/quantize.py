"""Which tensor is stored in which type: one table, first matching row wins.

Why it is as it is:
- Token tables are only looked up, row by row, and quantizing them below 8 bits audibly changes the pacing.
- The predictor's `ffn_down` is never F16: its input peaks near 1.5e5, above F16's 65504, and a product with an F16
  weight casts its input to F16. Blocks carry a scale, F32 and BF16 have the range; llama.cpp takes F32 for BF16 too.
- The k-quants' + and the layers chosen for it are llama.cpp's `use_more_bits` (src/llama-quant.cpp).
- Codebooks and their projections decide every sample and every code; they are small and stay F32. So does the speaker
  encoder. The rest of the codec is F16 or F32 whatever the --type.
- llama.cpp's own converter writes the codec's convolutions as F16 at every type and transposed ones as F32. Its
  pipeline runs F32 convolutions too (on the CPU, 0.3.36), but rounds their input to F16; ours does not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from qwen3tts_gguf.errors import OptionError
from qwen3tts_gguf.ggml.types import GgmlType
from qwen3tts_gguf.model.schema import Shape

__all__ = ["CODEC_TYPES", "TABLE", "TYPES", "Row", "choose_types", "file_type", "require_types", "table"]

# --type -> llama.cpp's number for such a file (include/llama.h, enum llama_ftype)
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q6_k": 18, "q5_k_m": 17, "q4_k_m": 15, "q4_0": 2}
TYPES = tuple(FILE_TYPES)
CODEC_TYPES = ("f16", "f32")


@dataclass(frozen=True)
class Row:
    """Tensors and their types."""

    what: str
    pattern: str
    """Matches the beginning of a GGUF name."""
    types: str
    """One type for all, or one for each of TYPES, or one for each of CODEC_TYPES. A + is Q6_K in the chosen layers."""

    def type(self, type: str, codec_type: str) -> str:
        """The entry for a --type and a --codec-type."""
        entries = self.types.split()
        places = {1: 0, len(TYPES): TYPES.index(type), len(CODEC_TYPES): CODEC_TYPES.index(codec_type)}
        return entries[places[len(entries)]]


_LAYER = re.compile(r"((?:a\.gen\.code\.)?blk)\.(\d+)\.")
_VECTORS = r".*(norm\.weight|\.l[ns][12]\.weight|\.bias|\.alpha|\.beta|\.gamma)$"

# fmt: off
TABLE = (
    Row("norms, biases, scales",        _VECTORS,                           "F32"),
    Row("speaker encoder",              r"(a\.(blk|conv|asp)|mm\.a)",       "F32"),
    Row("codec: quantizers",            r"a\.(gen\.wav|codec_enc)\.quant",  "F32"),
    Row("codec: transposed weights",    r"a\.gen\.wav\..*blk\.\d+\.conv\.", "F32"),
    # columns: f16 f32
    Row("codec: other weights",         r"a\.(gen\.wav|codec_enc)",         "F16 F32"),
    # columns: f32 f16 bf16 q8_0 q6_k q5_k_m q4_k_m q4_0
    Row("token table",                  r"token_embd",                      "F32 F16 BF16 Q8_0 Q8_0 Q8_0  Q8_0  Q8_0"),
    Row("talker: head",                 r"output",                          "F32 F16 BF16 Q8_0 Q6_K Q6_K  Q6_K  Q8_0"),
    Row("talker: v, ffn_down",          r"blk\..*(attn_v|ffn_down)",        "F32 F16 BF16 Q8_0 Q6_K Q5_K+ Q4_K+ Q4_0"),
    Row("talker: other matrices",       r"blk",                             "F32 F16 BF16 Q8_0 Q6_K Q5_K  Q4_K  Q4_0"),
    Row("predictor: ffn_down",          r"a\.gen\.code\.blk\..*ffn_down",   "F32 F32 F32  Q8_0 Q6_K Q5_K+ Q4_K+ Q4_0"),
    Row("predictor: v",                 r"a\.gen\.code\.blk\..*attn_v",     "F32 F16 BF16 Q8_0 Q6_K Q5_K+ Q4_K+ Q4_0"),
    Row("predictor: other matrices",    r"a\.gen\.code\.blk",               "F32 F16 BF16 Q8_0 Q6_K Q5_K  Q4_K  Q4_0"),
    Row("predictor: embeddings, heads", r"a\.gen\.code",                    "F32 F16 BF16 Q8_0 Q8_0 Q8_0  Q8_0  Q8_0"),
)
# fmt: on

# Where a row's length is no multiple of a type's block, as llama.cpp does (src/llama-quant.cpp, tensor_type_fallback).
_FALLBACKS = {GgmlType.Q4_K: GgmlType.Q5_0, GgmlType.Q5_K: GgmlType.Q5_1, GgmlType.Q6_K: GgmlType.Q8_0}


def require_types(type: str, codec_type: str) -> None:
    """Raises OptionError on a --type or --codec-type that does not exist."""
    if type not in TYPES:
        raise OptionError(f"unknown type {type!r}: it is one of {', '.join(TYPES)}")
    if codec_type not in CODEC_TYPES:
        raise OptionError(f"unknown codec type {codec_type!r}: it is one of {', '.join(CODEC_TYPES)}")


def file_type(type: str) -> int:
    """`general.file_type` of both files."""
    return FILE_TYPES[type]


def table(type: str, codec_type: str) -> list[tuple[str, str]]:
    """The table of one conversion: which tensors, and the name of their type."""
    return [(row.what, row.type(type, codec_type).replace("+", ", Q6_K in some layers")) for row in TABLE]


def choose_types(shapes: Mapping[str, Shape], type: str, codec_type: str) -> dict[str, GgmlType]:
    """The type of every tensor of a file, given the names and shapes of all."""
    layers = {name: _LAYER.match(name) for name in shapes}
    n_layers = Counter(layer[1] for name, layer in layers.items() if layer and name.endswith("attn_v.weight"))
    types = {}
    for name, shape in shapes.items():
        layer = layers[name]
        more_bits = layer is not None and _use_more_bits(int(layer[2]), n_layers[layer[1]])
        types[name] = GgmlType.F32 if len(shape) == 1 else _choose(name, shape[-1], type, codec_type, more_bits)
    return types


def _choose(name: str, row_length: int, type: str, codec_type: str, more_bits: bool) -> GgmlType:
    row = next(row for row in TABLE if re.match(row.pattern, name))
    entry = row.type(type, codec_type)
    chosen = GgmlType["Q6_K" if more_bits and entry.endswith("+") else entry.removesuffix("+")]
    if row_length % chosen.block_size:
        chosen = _FALLBACKS.get(chosen, chosen)
    if row_length % chosen.block_size:
        chosen = GgmlType.F32 if row.what == "predictor: ffn_down" else GgmlType.F16
    return chosen


def _use_more_bits(i: int, n: int) -> bool:
    """Whether layer i of n is a chosen one: the first and last eighth, and every third between."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2
