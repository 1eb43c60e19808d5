"""How far two machines may be apart that run the same kernel on the same inputs."""

import torch
from torch import Tensor


def reordering_slack(a: Tensor, b: Tensor, fraction_bits: int = 23) -> Tensor:
    """What the order and the cutting of sums may change in a [m, k] @ b [k, n], in float64.

    Let L be the largest magnitude that a partial sum can have: what stands before a block of 32
    products, in any order of instructions, and the magnitudes of that block together. Tensor cores
    align the products of an instruction, 8 of them at least, and the accumulator, and cut each
    below a bit of weight at most L / 2**fraction_bits, and again the sum. That is 1.25 k times for
    k products; adding one after the other in float32 rounds k times by half as much. Two machines
    are thus at most 2.5 k such bits apart. The next half allows for L itself being that far off.
    """
    a, b = a.double(), b.double()
    depth = a.shape[1]
    largest = torch.zeros(len(a), b.shape[1], dtype=torch.float64)
    before = torch.zeros_like(largest)
    for start in range(0, depth, 32):
        a_block, b_block = a[:, start : start + 32], b[start : start + 32]
        largest = torch.maximum(largest, before.abs() + a_block.abs() @ b_block.abs())
        before += a_block @ b_block
    return 3 * depth * 2.0**-fraction_bits * largest


def assert_agree(found: Tensor, other: Tensor, slack: Tensor | None) -> float:
    """Raises AssertionError unless results of two machines are as near as they have to be.

    Args:
        found: Of one machine.
        other: Of the other one, in the same format.
        slack: How far they may be apart before each is rounded to that format; None: not at all.

    Returns:
        The share of the elements whose bits are equal.
    """
    assert (found.shape, found.dtype) == (other.shape, other.dtype)
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[found.element_size()]
    equal = found.contiguous().view(width) == other.contiguous().view(width)
    share = float(equal.double().mean())
    if slack is None:
        assert equal.all(), _report(~equal, found, other)
        return share
    x, y = found.double(), other.double()
    # Each is rounded by half a step at most: eps / 2 of its magnitude.
    bound = slack + torch.finfo(found.dtype).eps * torch.maximum(x.abs(), y.abs())
    finite = x.isfinite() & y.isfinite()
    near = equal | (x.isnan() & y.isnan()) | (finite & ((x - y).abs() <= bound))
    assert near.all(), _report(~near, found, other)
    return share


def _report(wrong: Tensor, found: Tensor, other: Tensor) -> str:
    first = tuple(wrong.nonzero()[0].tolist())
    return (
        f"{int(wrong.sum())} of {wrong.numel()} elements differ; the first is {first}: "
        f"{found[first].item()!r} here, {other[first].item()!r} there"
    )
