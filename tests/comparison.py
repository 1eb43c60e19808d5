"""The one comparison by which every result is judged."""

import torch
from torch import Tensor

# Fewer errors than this say too little about their scale.
_ROW_ELEMS = 64
_TILE = 128


def assert_matches(
    actual: Tensor,
    oracle: Tensor,
    baseline: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    strides: tuple[int, ...] | None = None,
    rtol: float | None = None,
    global_bound: float | None = None,
) -> None:
    """Raises AssertionError unless ``actual`` is as good as plain torch in the same precision.

    Each finite element must satisfy::

        |actual - oracle| <= 2 * (largest |baseline - oracle| in its row)
                             + rtol * max(|oracle|, smallest normal number)

    - The row's largest error stands for the rounding inside the operation: at a single element
      the baseline may be exact by luck, and another row may have quite another scale. A row is the
      fewest trailing dimensions that hold 64 elements or more.
    - ``rtol`` is ``torch.finfo(actual.dtype).eps``, twice what rounding the exact result may cost:
      the neighbour of the rounded result passes.

    A systematic error could hide below that, so the whole tensor must also satisfy::

        norm(actual - oracle) <= global_bound * norm(oracle)

    where ``global_bound`` is twice the same ratio of the baseline, and at least ``rtol / 2``, the
    most that rounding the exact result may cost.

    NaN, +Inf and -Inf must stand exactly where the oracle has them. With an oracle of integers or
    booleans all elements must be equal. Empty tensors match when their shapes do.

    Args:
        actual: the result to judge, on any device, of any dtype.
        oracle: the exact result: float64, or integers or booleans.
        baseline: plain torch's result in the precision of ``actual``, of the dtype expected. Where
            there is none, the oracle rounded to ``dtype`` takes its place.
        dtype: the dtype expected, where there is no baseline; by default that of an integer oracle.
        strides: the strides expected, where they are part of the contract.
        rtol: replaces eps.
        global_bound: replaces the derived bound.

    Raises:
        AssertionError: names the first wrong element, how many there are, and where most of them
            are.
        TypeError: the oracle is not exact, or it is not said which dtype to expect.
    """
    __tracebackhide__ = True
    expected_dtype = _expected_dtype(oracle, baseline, dtype)
    assert actual.dtype == expected_dtype, f"dtype is {actual.dtype}, expected {expected_dtype}"
    _assert_same_shape("shape", actual, oracle)
    if strides is not None:
        assert actual.stride() == strides, f"strides are {actual.stride()}, expected {strides}"
    if actual.numel() == 0:
        return
    if not oracle.is_floating_point():
        wrong = actual.cpu() != oracle.cpu()
        assert not wrong.any(), _report(wrong, actual, oracle, torch.zeros(oracle.shape))
        return
    baseline = oracle.to(expected_dtype) if baseline is None else baseline
    _assert_same_shape("shape of the baseline", baseline, oracle)
    finfo = torch.finfo(expected_dtype)
    rtol = finfo.eps if rtol is None else rtol

    got, want = _as_float64(actual), _as_float64(oracle)
    size = _finite(want).abs()
    error = _finite(got - want).abs()
    baseline_error = _finite(_as_float64(baseline) - want).abs()
    bound = 2 * _row_max(baseline_error) + rtol * size.clamp(min=finfo.tiny)
    wrong = (error > bound) | _differs_in_kind(got, want)
    assert not wrong.any(), _report(wrong, actual, oracle, bound)

    derived = torch.maximum(2 * baseline_error.norm(), rtol / 2 * size.norm())
    limit = derived if global_bound is None else global_bound * size.norm()
    assert error.norm() <= limit, (
        f"the whole is off, though no element is beyond its own bound: norm of the error is"
        f" {error.norm():.4g}, bound {limit:.4g}, norm of the oracle {size.norm():.4g}"
    )


def _expected_dtype(
    oracle: Tensor, baseline: Tensor | None, dtype: torch.dtype | None
) -> torch.dtype:
    if oracle.is_floating_point() and oracle.dtype != torch.float64:
        raise TypeError(
            f"assert_matches: oracle must be float64 or integer, got {oracle.dtype}"
            " (compute it in float64)"
        )
    if baseline is not None:
        return baseline.dtype
    if dtype is not None:
        return dtype
    if oracle.is_floating_point():
        raise TypeError("assert_matches: dtype must be given where there is no baseline")
    return oracle.dtype


def _assert_same_shape(what: str, tensor: Tensor, oracle: Tensor) -> None:
    __tracebackhide__ = True
    got, expected = tuple(tensor.shape), tuple(oracle.shape)
    assert got == expected, f"{what} is {got}, expected {expected}"


def _as_float64(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().to(torch.float64)


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, 0.0)


def _differs_in_kind(got: Tensor, want: Tensor) -> Tensor:
    """Where one is NaN, +Inf or -Inf and the other is not the same."""
    both_nan = got.isnan() & want.isnan()
    return ~(got.isfinite() & want.isfinite()) & ~both_nan & (got != want)


def _row_max(values: Tensor) -> Tensor:
    row_elems = 1
    for extent in reversed(values.shape):
        row_elems *= extent
        if row_elems >= _ROW_ELEMS:
            break
    rows = values.reshape(-1, row_elems)
    return rows.amax(dim=1, keepdim=True).expand_as(rows).reshape(values.shape)


def _report(wrong: Tensor, actual: Tensor, oracle: Tensor, bound: Tensor) -> str:
    where = wrong.reshape(1).nonzero() if wrong.dim() == 0 else wrong.nonzero()
    first = tuple(where[0].tolist())[: wrong.dim()]
    tiles = where.clone()
    tiles[:, -2:] //= _TILE
    tiles, counts = torch.unique(tiles, dim=0, return_counts=True)
    fullest = int(counts.argmax())
    *leading, last = [str(index) for index in tiles[fullest, :-2].tolist()] + [
        f"{index * _TILE}:{(index + 1) * _TILE}" for index in tiles[fullest, -2:].tolist()
    ]
    return (
        f"{len(where)} of {wrong.numel()} elements are wrong, the first at {list(first)}:"
        f" actual {actual[first].item()}, expected {oracle[first].item()},"
        f" bound {bound[first].item():.4g};"
        f" {int(counts[fullest])} of them lie in [{', '.join([*leading, last])}]"
    )
