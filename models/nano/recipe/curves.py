"""Draws the learning curves of the card from the trainings' logs."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure
from settings import WORK

_PANELS = (
    ("decoder", "codec decoder", {"spectrum": "spectral distance", "mel": "log-mel distance"}),
    ("encoder", "codec encoder", {"relative": "squared error of the latents", "semantic": "of the semantic ones"}),
    (
        "talker",
        "talker and predictor",
        {
            "code_0": "code 0, disturbed history",
            "held-out code_0": "code 0, held out",
            "code_1": "code 1",
            "held-out predicted": "codes 1 to 15, held out",
        },
    ),
)


def main() -> None:
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (name, title, series) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        lines = [json.loads(line) for line in (WORK / f"{name}.log.jsonl").read_text().splitlines()]
        for key, label in series.items():
            points = [(line["minutes"], line[key]) for line in lines if key in line and line["step"] > 10]
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
        axes.set(title=title, xlabel="minutes of a core", ylabel="loss")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(Path(__file__).parents[1] / "curves.png", dpi=110)


if __name__ == "__main__":
    main()
