"""Measuring which tiles are fastest for a problem, instead of trusting the planner's model."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable

import torch

from csrc import Checker, num_sms
from deepgemm import fp8_kernels
from deepgemm.operands import PER_BLOCK, PER_TOKEN, Pair, check_fp8, check_output, names_of, pair_of
from deepgemm.plan import Config, Problem, candidates, cycles
from deepgemm.tuned import remember

_ROUNDS, _CALLS = 5, 20
# More than any Hopper's L2 holds, written between samples, so that operands come from memory.
_FLUSHED_BYTES = 256 * 2**20


def tune(a: Pair, b: Pair, d: torch.Tensor, *, most: int = 16) -> Config:
    """Measure the likeliest configurations of `fp8_gemm_nt` and keep the fastest for its shape.

    Later calls of `fp8_gemm_nt` with the same m, n and k on such a device use it, in this process
    and in others that share the cache folder. Waits for the device.

    Args:
        a: as for `fp8_gemm_nt`, on a Hopper GPU.
        b: likewise.
        d: likewise; overwritten.
        most: how many configurations to try, those that the planner rates best first.

    Returns:
        The fastest.

    Raises:
        TypeError, ValueError: an argument breaks a rule of `fp8_gemm_nt`, or a size is 0.
        NotImplementedError: the tensors are not on a GPU: there is nothing to measure.
        RuntimeError: two configurations give different results; nothing is kept.
        csrc.cache.CacheError: the cache folder cannot be written.
    """
    check = Checker("tune")
    names, a, b = names_of("tune"), pair_of("tune", "a", a), pair_of("tune", "b", b)
    check_fp8(check, names.a, a, ("m", "k"), PER_TOKEN)
    check_fp8(check, names.b, b, ("n", "k"), PER_BLOCK)
    check_output(check, d, ("m", "n"), torch.bfloat16)
    (m, k), n = a[0].shape, len(b[0])
    for name, size in check.dims.items():
        check.between(name, size, 1, 2**31 - 1, "there is nothing to tune")
    check.between("most", most, 1, 1000, "try at least one")
    if not d.is_cuda:
        check.not_built("a", "be on a GPU", d.device, "only there is a time to measure")
    problem = Problem(m=m, n=n, k=k)
    best = fastest(problem, a, b, d, most, _seconds)
    remember(problem, torch.cuda.get_device_name(d.device), best)
    return best


def fastest(
    problem: Problem,
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    most: int,
    seconds: Callable[[Callable[[], None], torch.device], float],
) -> Config:
    """The configuration with the least `seconds(call, device)` among those rated best."""
    sms = num_sms(d.device)
    rated = sorted(candidates(problem), key=lambda config: cycles(problem, config, sms))
    times: dict[Config, float] = {}
    first = None
    for config in itertools.islice(rated, most):

        def call(config: Config = config) -> None:
            fp8_kernels.gemm_nt(*a, *b, d, config=config)

        call()
        first = d.clone() if first is None else first
        # Parts of k that are added in another order may round to a neighbour.
        if not torch.allclose(d.float(), first.float(), rtol=2.0**-7, atol=1e-30, equal_nan=True):
            raise RuntimeError(f"tune: {config} gives another result than {rated[0]}")
        times[config] = seconds(call, d.device)
    return min(times, key=lambda config: times[config])


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    """The median time of a call, its operands not in L2."""
    flushed = torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device=device)
    samples = []
    for _ in range(_ROUNDS * _CALLS):
        flushed.zero_()
        begin, end = (
            torch.Event("cuda", enable_timing=True),
            torch.Event("cuda", enable_timing=True),
        )
        begin.record()
        call()
        end.record()
        end.synchronize()
        samples.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(samples)
