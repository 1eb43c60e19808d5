"""A warp-specialised GEMM with one mistake at a time: what finds it, and where it points.

The mistakes are made in a copy of the BF16 GEMM's text, or in the tensor maps that its launcher
passes. A mistake that breaks no rule shows in the product alone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from csrc.tensor_map import TensorMap
from deepgemm import bf16_kernels
from tests.mutations import changed, launch_instead, text_of
from tests.simulator.test_pilot import gemm, is_product, operands

pytestmark = pytest.mark.compile

_SEEDS = range(4)
_SMS = 2
_M, _N, _K = 256, 200, 520  # two tiles for each CTA, more steps in k than stages
_KERNEL = "bf16_gemm"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One mistake in a text.

    Attributes:
        old: what stands there, once.
        new: what takes its place.
        finding: how the report must begin, one of several between bars; "wrong product" if only
            the numbers tell.
        lines: parts of the mutated text, once there, whose lines the report must name.
        detail: what the report must say besides.
        k: of the product.
    """

    old: str
    new: str
    finding: str
    lines: tuple[str, ...] = ()
    detail: str = ""
    k: int = _K


_SYNC = "  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);\n"
_LOAD_B = "tma_load_multicast(place, map, full"
_STORE = "tma_store(params.d"
_STAGING = "stage_bf16<C::kBlockN>(sums"
_WGMMA = "wgmma<Element::kBf16, C::kBlockN"
_EXPECT = "arrive_and_expect(C::kStageBytes"
_WAIT_FULL = "storage.full[at.stage].wait(at.phase);"
_WAIT_EMPTY = "storage.empty[at.stage].wait_for_cluster(at.phase ^ 1);"
_READERS = "kWarpgroupThreads / 32;\n  // 128"

_MUTATIONS = {
    # Fences.
    "no fence_async_proxy": Mutation(
        "  fence_async_proxy();\n", "", "missing proxy fence", (_STAGING, _STORE)
    ),
    "no fence_mbarrier_init": Mutation(
        "    fence_mbarrier_init();\n", "", "mbarrier misuse", (_LOAD_B,)
    ),
    "no wgmma_fence": Mutation("    wgmma_fence();\n", "", "missing wgmma.fence", (_WGMMA,)),
    # Barriers of the cluster and the warpgroup.
    "no cluster_sync at the start": Mutation(
        "  __syncwarp();\n  cluster_sync();\n", "  __syncwarp();\n", "mbarrier misuse"
    ),
    "no barrier before staging": Mutation(
        _SYNC + "#pragma unroll", "#pragma unroll", "overwrite in flight", (_STAGING, _STORE)
    ),
    "no barrier after staging": Mutation(
        _SYNC + "  if (thread == 0) {", "  if (thread == 0) {", "data race", (_STAGING, _STORE)
    ),
    # The ring.
    # Whether the copies have begun when a consumer comes too soon is the seed's choice.
    "wrong phase of full": Mutation(
        _WAIT_FULL,
        _WAIT_FULL.replace("phase", "phase ^ 1"),
        "still filling|uninitialised",
        (_WGMMA,),
    ),
    "wrong phase of empty": Mutation(_WAIT_EMPTY, _WAIT_EMPTY.replace(" ^ 1", ""), "deadlock"),
    "no wait for full": Mutation(_WAIT_FULL, "", "still filling|uninitialised", (_WGMMA,)),
    "no wait for empty": Mutation(_WAIT_EMPTY, "", "mbarrier misuse", (_EXPECT,)),
    "too few bytes expected": Mutation(
        f"{_EXPECT})", f"{_EXPECT} - 16)", "deadlock", (_WAIT_FULL,), "-16 bytes missing"
    ),
    "too many bytes expected": Mutation(
        f"{_EXPECT})",
        f"{_EXPECT} + 16)",
        "deadlock",
        (_WAIT_FULL,),
        ", 0 of 1 arrivals and 16 bytes missing",
    ),
    "one CTA released": Mutation("if (lane < C::kClusterSize)", "if (lane < 1)", "deadlock"),
    "one reader too many": Mutation(_READERS, _READERS.replace("32", "32 + 1"), "deadlock"),
    # A warp of a warpgroup speaks for all four, so this takes some turns to do harm.
    "one reader too few": Mutation(
        _READERS, _READERS.replace("32", "32 - 1"), "overwrite in flight", k=4096
    ),
    "the wrong stage released": Mutation(
        "if (k > 0) release<C>(storage, reading)", "if (k > 0) release<C>(storage, at)", "deadlock"
    ),
    "the producer stays at a stage": Mutation(
        "      at.advance();\n    }\n  }", "    }\n  }", "mbarrier misuse"
    ),
    "no multicast": Mutation("kBothCtas = 3", "kBothCtas = 1", "deadlock"),
    "multicast to the peer alone": Mutation(
        "map, full, kBothCtas",
        "map, full, kBothCtas ^ (1 << rank)",
        "deadlock",
        (_WAIT_FULL,),
    ),
    "both halves of B in one place": Mutation(
        "tile + box * kRowBytes", "tile + (box - first) * kRowBytes", "overwrite in flight"
    ),
    "both CTAs load one half of B": Mutation(
        "kMajor == Major::kK ? row + box : k",
        "kMajor == Major::kK ? row + box - first : k",
        "wrong product",
    ),
    # Products.
    "released a product too soon": Mutation(
        "wgmma_wait<1>()", "wgmma_wait<2>()", "overwrite in flight"
    ),
    "sum read too soon": Mutation(
        "wgmma_wait_all(sums[wave]);", ";", "accumulator in flight", (_WGMMA,)
    ),
    "sum read one product too soon": Mutation(
        "wgmma_wait_all(sums[wave]);", "wgmma_wait<1>();", "accumulator in flight", (_WGMMA,)
    ),
    "no wgmma_commit": Mutation("    wgmma_commit();\n", "", "overwrite in flight", (_WGMMA,)),
    "old sums kept": Mutation(
        "float& sum : wave) sum = 0;", "float& sum : wave) ;", "wrong product"
    ),
    "products of k steps in the wrong place": Mutation(
        "kMajor == Major::kK ? kElementBytes :", "kMajor == Major::kK ? 1 :", "wrong product"
    ),
    # Layouts.
    "wrong swizzle of an operand": Mutation(
        "k_major_descriptor<Swizzle::k128B>",
        "k_major_descriptor<Swizzle::k64B>",
        "wrong swizzle",
        (_WGMMA,),
    ),
    # The result's way out.
    "no wait before staging": Mutation(
        "  if (thread == 0) tma_store_wait_read<0>();\n",
        "",
        "overwrite in flight",
        (_STAGING, _STORE),
    ),
    "no wait at the end": Mutation(
        "  if (threadIdx.x % kWarpgroupThreads == 0) tma_store_wait_read<0>();\n",
        "",
        "in flight at exit",
        (_STORE,),
    ),
    "no tma_store_commit": Mutation(
        "    tma_store_commit();\n", "", "overwrite in flight", (_STAGING, _STORE)
    ),
    "too many registers": Mutation(
        "kConsumerRegisters = 232", "kConsumerRegisters = 240", "deadlock"
    ),
}


def _report(seed: int, k: int = _K) -> str:
    """What is said of a run: the simulator's finding, "wrong product" or nothing."""
    a, b = operands(_M, _N, k, seed)
    try:
        d = gemm(a, b, seed, _SMS)
    except RuntimeError as error:
        return str(error)
    return "" if is_product(d, a, b) else "wrong product"


def _line(text: str, part: str) -> int:
    assert text.count(part) == 1, part
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize("name", _MUTATIONS)
def test_mutation_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = _MUTATIONS[name]
    text = changed(text_of(_KERNEL), mutation.old, mutation.new)
    launch_instead(text, _KERNEL, bf16_kernels, monkeypatch)
    for seed in _SEEDS:
        report = _report(seed, mutation.k)
        finding = report.partition(":")[0]
        assert finding in mutation.finding.split("|"), f"seed {seed}: {report}"
        assert mutation.detail in report, report
        for part in mutation.lines:
            place = f"{_KERNEL}.cu:{_line(text, part)}"
            assert re.search(re.escape(place) + r"\b", report), f"{place}: {report}"


def test_the_clean_twin() -> None:
    for seed in range(20):
        assert _report(seed) == ""


@pytest.mark.parametrize(
    ("operand", "finding"), [("a", "wrong swizzle"), ("b", "wrong swizzle"), ("d", "wrong product")]
)
def test_wrong_swizzle_of_a_map_is_found(
    operand: str, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher makes the maps of A, B and D in this order."""
    right = TensorMap.of
    for seed in _SEEDS:
        maps = iter("abd")

        def wrong(
            tensor: Tensor, box: tuple[int, ...], maps: Iterator[str] = maps, **options: Any
        ) -> TensorMap:
            if next(maps) == operand:
                options["swizzle_bytes"] = 0
            return right(tensor, box, **options)

        monkeypatch.setattr(TensorMap, "of", wrong)
        report = _report(seed)
        assert report.partition(":")[0] == finding, f"seed {seed}: {report}"
