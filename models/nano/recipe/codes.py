"""The code space, without a gradient: what a frame's sixteen codes mean.

A frame is a patch of 8 x 80 log-mel values (10 ms each). All patches -> their first 64 principal components, in one
common scale, so that distances stay those of the log-mel patch. Codebooks 1 to 15 quantize that vector, one residual
after the other. Codebook 0 quantizes a linear image of it in which the same place in the same word lies close together
in all ten voices (linear discriminant analysis): the words, without the speaker. k-means everywhere.

    $WORK/codes.npy    [frames, 16] int16
    $WORK/latents.npy  [frames, 64] float16, what the encoder learns
    $WORK/space.pt     mean [640], basis [640, 64], semantic [64, 64], books [16, 128, 64]
"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import torch
from settings import CODE_DIM, CODEBOOK_SIZE, FRAME, N_CODEBOOKS, SEED, WORK
from sound import log_mel
from torch import Tensor

_FLOOR = 1e-3
_CENTRES_FROM = 40_000  # frames k-means looks at
_LEAST_CLASS = 20  # frames a place in a word must have to count as a class
_DELAY = 392  # samples: a 10 ms mel column ends where its window ends, so no frame looks ahead


def patches(wave: np.ndarray) -> Tensor:
    """[frames, 640] of int16 samples."""
    rows, step = [], 1000 * FRAME
    for start in range(0, len(wave), step):
        before = max(0, start - FRAME)
        x = torch.from_numpy(wave[before : start + step].astype(np.float32) / 32768)
        x = torch.nn.functional.pad(x, (_DELAY, 0))[: len(x)]
        rows.append(log_mel(x[None], floor=_FLOOR)[0].T.reshape(-1, 640)[(start - before) // FRAME :])
    return torch.cat(rows)


def _classes(items: list[dict]) -> list[str]:
    """For each frame: the word and how far it has come, or nothing."""
    names = []
    for item in items:
        for word, n in item["words"]:
            names += [f"{word.lower().strip('.,?')}/{n}/{i}" for i in range(n)]
        names += [""] * (item["samples"] // FRAME - sum(n for _, n in item["words"]))
    return names


def _discriminants(x: Tensor, names: list[str]) -> Tensor:
    """[64, 64]: x @ result tells places in words apart, best direction first, one within-class deviation per unit."""
    counts = Counter(names)
    known = {n: i for i, n in enumerate(n for n, c in counts.items() if n and c >= _LEAST_CLASS)}
    of = torch.tensor([known.get(n, -1) for n in names])
    x, of = x[of >= 0], of[of >= 0]
    n = torch.bincount(of).float()
    means = torch.zeros(len(known), x.shape[1]).index_add_(0, of, x) / n[:, None]
    within = (x - means[of]).T @ (x - means[of]) / len(x)
    centred = means - x.mean(0)
    between = (centred * n[:, None]).T @ centred / len(x)
    values, vectors = torch.linalg.eigh(within)
    whiten = vectors / values.clamp(min=1e-4 * values.max()).sqrt()
    values, rotation = torch.linalg.eigh(whiten.T @ between @ whiten)
    order = values.argsort(descending=True)
    print("discriminants, between/within:", values[order][[0, 1, 3, 7, 15, 31, 63]].numpy().round(2).tolist())
    weight = (values[order] / (1 + values[order])).clamp(min=0).sqrt()  # what the noise leaves of each direction
    return whiten @ rotation[:, order] * weight


def _k_means(x: Tensor, rounds: int = 15) -> Tensor:
    """[CODEBOOK_SIZE, dim] centres; an empty one starts again at some vector."""
    x = x[torch.randperm(len(x))[:_CENTRES_FROM]]
    centres = x[:CODEBOOK_SIZE].clone()
    for _ in range(rounds):
        nearest = torch.cdist(x, centres).argmin(1)
        n = torch.bincount(nearest, minlength=CODEBOOK_SIZE).float()[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, x)
        centres = torch.where(n > 3, sums / n.clamp(min=1), x[torch.randint(len(x), (CODEBOOK_SIZE,))])
    return centres


def main() -> None:
    torch.manual_seed(SEED)
    items = json.loads((WORK / "items.json").read_text())
    wave = np.load(WORK / "wav.npy", mmap_mode="r")
    n_held = sum(i["samples"] for i in items if i["held"]) // FRAME
    x = patches(wave)
    mean = x.mean(0)
    x -= mean
    values, basis = torch.linalg.eigh(x.T @ x / len(x))
    values, basis = values.flip(0), basis.flip(1)[:, :CODE_DIM]
    print(f"{len(x)} frames; 64 components keep {values[:CODE_DIM].sum() / values.sum():.3f} of the variance")
    basis = basis / values[:CODE_DIM].sqrt().mean()
    z = x @ basis
    del x
    semantic = _discriminants(z[n_held:], _classes(items)[n_held:])

    s = z @ semantic
    books = [_k_means(s[n_held:])]
    codes = [torch.cdist(s, books[0]).argmin(1)]
    rest = z.clone()
    for i in range(1, N_CODEBOOKS):
        books.append(_k_means(rest[n_held:]))
        codes.append(torch.cdist(rest, books[-1]).argmin(1))
        rest -= books[-1][codes[-1]]
        left = rest[:n_held].pow(2).sum() / z[:n_held].pow(2).sum()
        print(f"codebook {i}: {left:.4f} of the held-out energy left")
    torch.save(dict(mean=mean, basis=basis, semantic=semantic, books=torch.stack(books)), WORK / "space.pt")
    np.save(WORK / "codes.npy", torch.stack(codes, 1).numpy().astype(np.int16))
    np.save(WORK / "latents.npy", z.numpy().astype(np.float16))


if __name__ == "__main__":
    main()
