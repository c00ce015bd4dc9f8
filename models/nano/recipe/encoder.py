"""Trains the codec's encoder: sound to the corpus' latents, so that its codes are the corpus' codes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from codec import Corpus, new_codec
from settings import ENCODER, FRAME, REFERENCE_PAD_FRAMES, REFERENCES, SEED, SEMANTIC_WEIGHT, WORK
from torch import Tensor, nn
from training import Run


def encoded(encoder: nn.Module, sound: Tensor) -> Tensor:
    """[batch, samples] -> [batch, hidden, frames], what the quantizers see."""
    x = encoder.encoder(sound[:, None]).transpose(1, 2)
    return encoder.downsample(encoder.encoder_transformer(x, return_dict=True)[0].transpose(1, 2))


def main() -> None:
    torch.manual_seed(SEED)
    corpus = Corpus()
    semantic = torch.load(WORK / "space.pt")["semantic"]
    encoder = new_codec().encoder.train()
    encoder.encoder.layers[0].conv.weight.data.mul_(5)  # the waves are quiet
    run = Run("encoder", encoder, ENCODER, betas=(0.9, 0.99), frozen=("output_proj", "semantic"))
    rng = random.Random(run.seed)
    quantizers = encoder.quantizer
    project = quantizers.acoustic_residual_vector_quantizer.input_proj
    project_semantic = quantizers.semantic_residual_vector_quantizer.input_proj
    energy = corpus.latents.pow(2).mean()
    batch, frames = ENCODER["batch"], ENCODER["frames"]

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        """Sound, latents, and 1 where the frame has all the past it needs."""
        sound, latents = [], []
        known = torch.ones(batch, frames)
        for row, item in enumerate(rng.choices(corpus.train, k=batch)):
            whole = corpus.frames(item)
            first = whole.start
            if rng.random() < 0.6:
                first = rng.randint(whole.start, max(whole.start, whole.stop - frames))
            first = min(first, len(corpus.latents) - frames)
            known[row, 0] = float(first == whole.start)
            sound.append(corpus.sound(first, frames))
            latents.append(corpus.latents[first : first + frames])
        return torch.stack(sound), torch.stack(latents), known

    def start_projection() -> None:
        """The least-squares answer of the untrained encoder."""
        with torch.no_grad():
            pairs = [(encoded(encoder, s).transpose(1, 2)[k > 0], z[k > 0]) for s, z, k in (draw() for _ in range(25))]
            a, b = (torch.cat(x) for x in zip(*pairs, strict=True))
            ridge = 1e-3 * len(a) * a.pow(2).mean() * torch.eye(a.shape[1])
            project.weight.copy_(torch.linalg.solve(a.T @ a + ridge, a.T @ b).T[..., None])

    @torch.no_grad()
    def tie_semantic() -> None:
        """The semantic quantizer sees the linear image in which the corpus was quantized."""
        project_semantic.weight.copy_((semantic.T @ project.weight[..., 0])[..., None])

    def loss() -> tuple[Tensor, dict[str, Any]]:
        sound, latents, known = draw()
        made = project(encoded(encoder, sound)).transpose(1, 2)
        error = made - latents
        plain = (error.pow(2).mean(2) * known).sum() / known.sum() / energy
        meaning = ((error @ semantic).pow(2).mean(2) * known).sum() / known.sum()
        return plain + SEMANTIC_WEIGHT * meaning, dict(relative=plain.item(), semantic=meaning.item())

    @torch.no_grad()
    def check() -> dict[str, float]:
        tie_semantic()
        encoder.eval()
        same = []
        for item in corpus.held[:40]:
            whole = corpus.frames(item)
            codes = encoder.encode(corpus.speech(item)[None, None], return_dict=True).audio_codes[0].T
            same.append((codes == corpus.codes[whole]).float())
        encoder.train()
        share = torch.cat(same).mean(0)
        return {f"codebook {i} agrees": share[i].item() for i in (0, 1, 2, 4)}

    if run.step == 0:
        start_projection()
    run.train(loss, check)
    tie_semantic()
    torch.save(encoder.state_dict(), WORK / "encoder.pt")
    encode_references(encoder.eval(), corpus)


@torch.no_grad()
def encode_references(encoder: nn.Module, corpus: Corpus) -> None:
    """Writes what the encoder makes of the first utterances, each with silence after it, as cloning will see them."""
    codes = []
    for item in corpus.items[:REFERENCES]:
        sound = nn.functional.pad(corpus.speech(item), (0, REFERENCE_PAD_FRAMES * FRAME))
        codes.append(encoder.encode(sound[None, None], return_dict=True).audio_codes[0].T.numpy().astype(np.int16))
    np.savez(WORK / "references.npz", codes=np.concatenate(codes), frames=[len(c) for c in codes])


if __name__ == "__main__":
    main()
