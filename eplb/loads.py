"""Load statistics: the last iterations' tokens per expert, and what to plan for after them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eplb.checks import checked_loads
from eplb.plan import Floats


class LoadWindow:
    """The tokens per expert of the last iterations; older ones are forgotten.

    What it holds never grows: `window` x `num_layers` x `num_experts` float32, 59 MB for 1000
    iterations of 58 layers with 256 experts. A count above 2^24 is rounded to 24 bits.

    >>> history = LoadWindow(num_layers=1, num_experts=2, window=100)
    >>> for count in (1, 3):
    ...     history.add(np.array([[count, 0]]))
    >>> history.mean().tolist()
    [[2.0, 0.0]]

    Args:
        num_layers: layers with routed experts.
        num_experts: logical experts per layer.
        window: how many iterations to remember.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(self, num_layers: int, num_experts: int, *, window: int) -> None:
        sizes = {"num_layers": num_layers, "num_experts": num_experts, "window": window}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"LoadWindow: {name} must be at least 1, got {value}")
        self._ring = np.zeros((window, num_layers, num_experts), np.float32)
        self.reset()

    def __len__(self) -> int:
        """How many iterations are remembered, at most `window`."""
        return min(self._num_added, len(self._ring))

    def reset(self) -> None:
        """Forgets all iterations, as after a change of the traffic or of the model."""
        self._num_added = 0

    def add(self, counts: Tensor | NDArray[np.generic]) -> None:
        """Remembers one iteration.

        Args:
            counts: [num_layers, num_experts] integers or floats — tokens of each expert. A tensor
                on a GPU is copied, which waits for the work that fills it.

        Raises:
            TypeError: no tensor or array of numbers.
            ValueError: another shape, or a count is NaN, infinite or negative.
        """
        expected = self._ring.shape[1:]
        if getattr(counts, "shape", expected) != expected:
            raise ValueError(
                f"LoadWindow.add: counts must have shape {list(expected)}, "
                f"got {list(counts.shape)} (add one iteration at a time)"
            )
        checked = checked_loads("LoadWindow.add", counts, "counts")[0]
        self._ring[self._num_added % len(self._ring)] = checked
        self._num_added += 1

    def mean(self) -> Floats:
        """[num_layers, num_experts] float64: the mean over the iterations."""
        average: Floats = self._unordered("mean").mean(axis=0, dtype=np.float64)
        return average

    def ema(self, half_life: float) -> Floats:
        """[num_layers, num_experts] float64: a mean in which older iterations count less.

        Args:
            half_life: after how many iterations the weight has halved; the last one weighs most.

        Raises:
            ValueError: `half_life` is not positive, or there is no iteration.
        """
        if not half_life > 0:
            raise ValueError(f"LoadWindow.ema: half_life must be above 0, got {half_life}")
        iterations = self._iterations("ema")
        weights = 0.5 ** (np.arange(len(self))[::-1] / half_life)
        average: Floats = np.tensordot(weights / weights.sum(), iterations, axes=1)
        return average

    def percentile(self, q: float) -> Floats:
        """[num_layers, num_experts] float64: what each expert stays below in q % of iterations.

        Each expert is taken by itself, between two iterations linearly.

        Args:
            q: from 0 to 100.

        Raises:
            ValueError: `q` is out of range, or there is no iteration.
        """
        if not 0 <= q <= 100:
            raise ValueError(f"LoadWindow.percentile: q must be from 0 to 100, got {q}")
        result: Floats = np.percentile(self._unordered("percentile").astype(np.float64), q, axis=0)
        return result

    def windows(self, n: int) -> Floats:
        """[n, num_layers, num_experts] float64: the means of n equal stretches, oldest first.

        A plan for all of them is good in the worst one, where a plan for the mean may be bad in
        each. If n does not divide the iterations, the earlier stretches are one longer.

        Raises:
            ValueError: there are fewer than n iterations.
        """
        iterations = self._iterations("windows")
        if not 1 <= n <= len(iterations):
            raise ValueError(
                f"LoadWindow.windows: n must be from 1 to the {len(iterations)} iterations, got {n}"
            )
        return np.stack([part.mean(axis=0) for part in np.array_split(iterations, n)])

    def _iterations(self, method: str) -> Floats:
        """[len(self), num_layers, num_experts] float64, oldest first."""
        first = self._num_added % len(self._ring) if len(self) == len(self._ring) else 0
        return np.roll(self._unordered(method), -first, axis=0).astype(np.float64)

    def _unordered(self, method: str) -> NDArray[np.float32]:
        if not len(self):
            raise ValueError(
                f"LoadWindow.{method}: there must be an iteration, got none (call add)"
            )
        return self._ring[: len(self)]
