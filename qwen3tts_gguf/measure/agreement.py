"""How near one model's answers are to another's when both were given the same: arithmetic, no model.

`found` is always the model in question, `expected` the reference. Logits are compared along the last axis, in double
precision. An answer that is not a number agrees with nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["cosine", "divergence", "rank", "snr_db"]

Floats = NDArray[np.floating]


def cosine(found: Floats, expected: Floats) -> NDArray[np.float64]:
    """Vectors [..., n] -> the cosine of the angle between them [...]; 1 is exact for equal ones."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    products = [np.einsum("...i,...i->...", x, y) for x, y in ((a, b), (a, a), (b, b))]
    return np.asarray(products[0] / np.sqrt(products[1] * products[2]))


def divergence(found: Floats, expected: Floats) -> NDArray[np.float64]:
    """Logits [..., n] -> KL(expected || found) of their softmax, in nats [...]; 0 is exact for equal ones."""
    a, b = _log_softmax(found), _log_softmax(expected)
    return np.asarray((np.exp(b) * (b - a)).sum(axis=-1))


def rank(found: Floats, expected: Floats) -> NDArray[np.intp]:
    """Logits [..., n] -> the place, from 0, at which `found` has what `expected` holds likeliest [...]."""
    likeliest = np.take_along_axis(found, expected.argmax(axis=-1)[..., None], axis=-1)
    return np.asarray((~(found <= likeliest)).sum(axis=-1))  # not `found > likeliest`: NaN stands before everything


def snr_db(found: Floats, expected: Floats) -> float:
    """Samples [n] -> power of the expected ones over that of the difference, in dB; infinity where they are equal."""
    error = float(np.square(found.astype(np.float64) - expected).sum())
    signal = float(np.square(expected.astype(np.float64)).sum())
    if error == 0:
        return float("inf")
    return float(10 * np.log10(signal / error)) if signal else float("-inf")


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True).astype(np.float64)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
