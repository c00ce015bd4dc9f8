"""Puts the trained decoder and encoder into the checkpoint's codec."""

from __future__ import annotations

import torch
from checkpoint import write_codec
from codec import new_codec
from settings import WORK


def main() -> None:
    codec = new_codec()
    for part in ("decoder", "encoder"):
        finished, going_on = WORK / f"{part}.pt", WORK / f"{part}.state.pt"
        weights = torch.load(finished) if finished.exists() else torch.load(going_on)["module"]
        getattr(codec, part).load_state_dict(weights)
    write_codec(codec)


if __name__ == "__main__":
    main()
