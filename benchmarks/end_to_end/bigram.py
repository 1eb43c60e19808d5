"""The best model that sees only the byte before: what a network has to beat to have learnt more.

It is trained on every training byte, many more than the network sees, and its one free number is
chosen on the very bytes on which it is judged, so that its loss is a bound no real bigram model
goes below.
"""

from dataclasses import dataclass

import numpy as np

from benchmarks.end_to_end.text import VOCABULARY, Bytes

_STRENGTHS = tuple(float(strength) for strength in np.logspace(-2, 4, 25))


@dataclass(frozen=True, slots=True)
class BigramLoss:
    """The loss of the best bigram model.

    Attributes:
        nats: mean negative log likelihood per byte.
        strength: the smoothing that gave it, in pseudo-counts per context.
    """

    nats: float
    strength: float


def best_bigram_loss(train: Bytes, validation: Bytes) -> BigramLoss:
    """Finds the best Dirichlet smoothing of byte-pair counts.

    The chance of byte b after byte a is (count(a, b) + s p(b)) / (count(a) + s), with p the chance
    of b anywhere (MacKay and Peto, A Hierarchical Dirichlet Language Model, 1995).

    Args:
        train: [num_sequences, seq_len + 1] uint8.
        validation: the same; each byte but the first of a sequence is predicted.
    """
    pairs = _count_pairs(train)
    singles = pairs.sum(axis=0) + 1.0
    anywhere = singles / singles.sum()
    totals = pairs.sum(axis=1, keepdims=True)
    judged = _count_pairs(validation)
    losses = []
    for strength in _STRENGTHS:
        chances = (pairs + strength * anywhere) / (totals + strength)
        nats = -(judged * np.log(chances)).sum() / judged.sum()
        losses.append(BigramLoss(float(nats), strength))
    return min(losses, key=lambda loss: loss.nats)


def _count_pairs(sequences: Bytes) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    codes = sequences[:, :-1].astype(np.int64) * VOCABULARY + sequences[:, 1:]
    counts = np.bincount(codes.ravel(), minlength=VOCABULARY**2)
    return counts.reshape(VOCABULARY, VOCABULARY).astype(np.float64)
