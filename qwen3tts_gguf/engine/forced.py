"""What a model computes when it is given codes instead of its own choices (teacher forcing): for comparing models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .engine import Engine
from .lane import Request

__all__ = ["Forced", "teacher_forced"]


@dataclass(frozen=True)
class Forced:
    """T frames; row t is what the model computed before it was given frame t's codes."""

    hidden: NDArray[np.float32]  # [T, hidden], the talker's, after its final norm
    logits: NDArray[np.float32]  # [T, 3072], of code 0, before suppression and sampling
    predictor_logits: NDArray[np.float32]  # [T, 15, codebook_size], with the frame's own earlier codes given
    samples: NDArray[np.float32]  # [T * 1920], the codes decoded


def teacher_forced(engine: Engine, request: Request, codes: NDArray[np.int32]) -> Forced:
    """Lead a model over codes [T, 16] after a request's prompt. Other speeches wait meanwhile; from any thread."""
    samples = engine.decode(codes, request.reference)
    prompt, talker, predictor = request.prompt, engine.talker, engine.predictor

    def compute() -> Forced:
        talker.use_threads(engine.plan.threads.all)
        sequence = talker.open()
        try:
            for piece in sequence.start(prompt.embeddings, prompt.n_shared):
                sequence.prefill(prompt.embeddings[piece])
            inputs = predictor.embed(codes) + np.stack([prompt.text_row(i) for i in range(len(codes))])
            rows = [prompt.embeddings[-1], *inputs[:-1]]
            outputs = [talker.step([(sequence, row)])[0] for row in rows]
        finally:
            sequence.close()
        return Forced(
            hidden=np.stack([output.hidden for output in outputs]),
            logits=np.stack([output.logits for output in outputs]),
            predictor_logits=np.stack(
                [predictor.logits(output.hidden, frame) for output, frame in zip(outputs, codes, strict=True)]
            ),
            samples=samples,
        )

    return engine.call(compute)
