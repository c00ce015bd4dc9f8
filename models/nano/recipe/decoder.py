"""Trains the codec's decoder: codes, which stay as they are, to sound."""

from __future__ import annotations

import random
from typing import Any

import torch
from codec import Corpus, new_codec
from settings import DECODER, FRAME, SEED, WORK
from sound import spectral_distance
from torch import Tensor, nn
from training import RANK, Run


def decoded(decoder: nn.Module, codes: Tensor) -> Tensor:
    """[batch, 16, frames] -> [batch, samples], by the official modules but without their inference-only wrapper."""
    x = decoder.pre_conv(decoder.quantizer.decode(codes)).transpose(1, 2)
    x = decoder.pre_transformer(inputs_embeds=x).last_hidden_state.permute(0, 2, 1)
    for stage in decoder.upsample:
        for layer in stage:
            x = layer(x)
    for layer in decoder.decoder:
        x = layer(x)
    return x[:, 0]


def main() -> None:
    torch.manual_seed(SEED)
    corpus = Corpus()
    decoder = new_codec().decoder.train()
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_("_codebook" not in name)
    run = Run("decoder", decoder, DECODER, betas=(0.8, 0.99))
    rng = random.Random(run.seed)
    batch, frames, warm_up = DECODER["batch"], DECODER["frames"], DECODER["warm_up_frames"]

    def loss() -> tuple[Tensor, dict[str, Any]]:
        codes, sound = [], []
        for item in rng.choices(corpus.train, k=batch):
            whole = corpus.frames(item)
            first = min(rng.randint(whole.start, max(whole.start, whole.stop - frames)), len(corpus.codes) - frames)
            codes.append(corpus.codes[first : first + frames].T)
            sound.append(corpus.sound(first, frames))
        made = decoded(decoder, torch.stack(codes))[:, warm_up * FRAME :]
        spectrum, mel = spectral_distance(made, torch.stack(sound)[:, warm_up * FRAME :])
        return spectrum + mel, dict(spectrum=spectrum.item(), mel=mel.item())

    run.train(loss)
    if RANK == 0:
        torch.save(decoder.state_dict(), WORK / "decoder.pt")


if __name__ == "__main__":
    main()
