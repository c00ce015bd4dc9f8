"""What quantizing costs a trained model: the evaluation and `verify` at every type, as docs/QUALITY.md has them.

    python models/nano/recipe/quality.py CHECKPOINT --out build/quality

Writes figures.json, a table in Markdown, and docs/quality.png. Runs on the product, with pocketsphinx and
matplotlib.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from evaluate import Figures, evaluate, held_out
from matplotlib.figure import Figure

from qwen3tts_convert import convert
from qwen3tts_gguf import TTS, SpeechOptions
from qwen3tts_gguf.measure.verdict import Report
from qwen3tts_gguf.measure.verification import compare

TYPES = ("f32", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
_ROOT = Path(__file__).parents[3]
_VERIFIED = 12  # sentences

Row = tuple[str, int, list[Figures], Report]


def measure(name: str, checkpoint: Path, out: Path, exact: Path, n: int | None) -> Row:
    """One type, on one thread."""
    codec_type = "f32" if name == "f32" else "f16"
    pair = convert(checkpoint, out, type=name, codec_type=codec_type, name="nano")
    tts = TTS(pair.talker, n_threads=1)
    figures = [evaluate(tts, name, mode, held_out(n)) for mode in ("x-vector", "in-context")]
    del tts
    texts = [sentence["text"] for sentence in held_out(_VERIFIED)]
    options = SpeechOptions(seed=0, language="english")
    report = compare(pair.talker, exact, texts=texts, options=options, n_threads=1)
    print(*figures, f"hidden cosine {report.hidden_cosine:.5f}", sep="\n", flush=True)
    return name, pair.talker.stat().st_size + pair.mmproj.stat().st_size, figures, report


def table(rows: list[Row]) -> str:
    head = (
        "| type | MB | WER x-vector | WER in-context | ended | length | right voice | hidden cosine | KL code 0 | "
        "top-1 code 0 | KL codes 1-15 | codec SNR dB |"
    )
    lines = [head, "|---" + "|---:" * 11 + "|"]
    for name, size, (vector, context), report in rows:
        first, rest = report.codebooks[0], report.predictor
        lines.append(
            f"| {name} | {size / 1e6:.1f} | {vector.word_error_rate:.1%} | {context.word_error_rate:.1%} | "
            f"{min(vector.ended, context.ended):.1%} | {vector.length:.2f} | {vector.right_voice:.1%} | "
            f"{report.hidden_cosine:.5f} | {first.kl:.4f} | {first.top1:.1%} | {rest.kl:.4f} | {report.snr_db:.1f} |"
        )
    return "\n".join(lines) + "\n"


def draw(rows: list[Row], path: Path) -> None:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    words, codes = figure.subplots(1, 2)
    names = [name for name, *_ in rows]
    for shift, mode in ((-0.2, 0), (0.2, 1)):
        values = [100 * figures[mode].word_error_rate for _, _, figures, _ in rows]
        words.bar([i + shift for i in range(len(rows))], values, 0.4, label=rows[0][2][mode].mode)
    words.set(title="words wrong on held-out sentences", ylabel="%", xticks=range(len(rows)), xticklabels=names)
    words.legend()
    for name, _, _, report in rows[1:]:
        codes.plot([100 * book.top1 for book in report.codebooks], marker=".", label=name)
    codes.set(title="likeliest code as at f32, history forced", xlabel="codebook", ylabel="%")
    codes.legend(fontsize=8)
    for axes in (words, codes):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", type=Path, default=Path("build/quality"))
    parser.add_argument("--sentences", type=int, help="the first so many; default: all")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    exact = convert(arguments.checkpoint, arguments.out, type="f32", codec_type="f32", name="exact").talker
    one = partial(measure, checkpoint=arguments.checkpoint, out=arguments.out, exact=exact, n=arguments.sentences)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        rows = pool.map(one, TYPES, chunksize=1)
    found = [
        dict(type=name, bytes=size, evaluation=[asdict(f) for f in figures], verify=report.as_dict())
        for name, size, figures, report in rows
    ]
    (arguments.out / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
    (arguments.out / "table.md").write_text(table(rows))
    draw(rows, _ROOT / "docs" / "quality.png")


if __name__ == "__main__":
    main()
