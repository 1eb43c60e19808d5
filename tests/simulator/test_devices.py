"""Several devices that run at once, and wait for one another in each other's memory."""

import re
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from csrc import compiler, simulator
from tests.simulator.running import source

_SOURCE = Path(__file__).parent / "device_kernels.cu"
_MOST_DEVICES = 8
_BUGS = ["kRelaxedRelease", "kRelaxedAcquire", "kGpuRelease", "kGpuAcquire"]
_RACE = "data race: .* on device"


@cache
def _kernel(name: str, bug: str) -> simulator.Kernel:
    expression = f"openweek::tests::{name}<openweek::tests::Bug::{bug}>"
    compiled = compiler.compile_kernel(_SOURCE, expression)
    return simulator.load(compiled.ptx)[compiled.name]


def _pointers(tensors: Sequence[Tensor]) -> bytes:
    addresses = [tensor.data_ptr() for tensor in tensors]
    return struct.pack(f"<{_MOST_DEVICES}Q", *addresses, *[0] * (_MOST_DEVICES - len(tensors)))


def _all_gather(num_devices: int, bug: str, seed: int) -> None:
    chunk = 5
    machine = simulator.Machine(devices=num_devices, sms=1, seed=seed)
    gathered = [torch.full((num_devices, chunk), -1, dtype=torch.int32) for _ in range(num_devices)]
    flags = [torch.zeros(num_devices, dtype=torch.int32) for _ in range(num_devices)]
    sums = torch.zeros(num_devices, dtype=torch.int32)
    expected = torch.arange(num_devices * chunk, dtype=torch.int32).view(num_devices, chunk)
    for rank, tensor in enumerate(gathered):
        tensor[rank] = expected[rank]
    for tensor in (*gathered, *flags, sums):
        machine.symmetric(tensor)
    for rank in range(num_devices):
        params = _pointers(gathered) + _pointers(flags)
        params += struct.pack("<Qiii4x", sums.data_ptr(), rank, num_devices, chunk)
        machine.launch(_kernel("all_gather", bug), 1, 64, args=[params], device=rank)
    machine.run()
    for tensor in gathered:
        assert torch.equal(tensor, expected)
    assert (sums == expected.sum()).all()


def _rounds(num_devices: int, bug: str, seed: int) -> None:
    num_rounds = 3
    machine = simulator.Machine(devices=num_devices, sms=1, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    values = [
        machine.symmetric(torch.randint(100, (32,), generator=generator, dtype=torch.int32))
        for _ in range(num_devices)
    ]
    counter = machine.symmetric(torch.zeros(1, dtype=torch.int32))
    expected = torch.stack(values)
    for _ in range(num_rounds):
        expected = (expected.sum(0) + torch.arange(32)).expand(num_devices, 32)
    for rank in range(num_devices):
        params = _pointers(values)
        params += struct.pack("<Qiii4x", counter.data_ptr(), rank, num_devices, num_rounds)
        machine.launch(_kernel("rounds", bug), 1, 32, args=[params], device=rank)
    machine.run()
    assert (torch.stack(values) == expected).all()


def _all_reduce(num_devices: int, bug: str, seed: int) -> None:
    length = 16 * num_devices
    machine = simulator.Machine(devices=num_devices, sms=1, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randint(-99, 99, (length,), generator=generator).float() for _ in range(num_devices)
    ]
    outputs = [torch.full((length,), float("nan")) for _ in range(num_devices)]
    flags = [torch.zeros(4, dtype=torch.int32) for _ in range(num_devices)]
    expected = 2 * torch.stack(inputs).sum(0) + 1
    addresses = [machine.multicast(tensors) for tensors in (inputs, outputs, flags)]
    for rank, own in enumerate(zip(inputs, outputs, flags, strict=True)):
        pointers = [
            pointer
            for tensor, everywhere in zip(own, addresses, strict=True)
            for pointer in (tensor.data_ptr(), everywhere)
        ]
        params = struct.pack("<6Qiii4x", *pointers, rank, num_devices, length)
        machine.launch(
            _kernel("all_reduce", bug), 1, 32, args=[params], device=rank, memory=list(own)
        )
    machine.run()
    assert all(torch.equal(output, expected) for output in outputs)


_JOBS = {"all_gather": _all_gather, "rounds": _rounds, "all_reduce": _all_reduce}


@pytest.mark.compile
@pytest.mark.parametrize("job", _JOBS)
def test_devices_work_together(job: str) -> None:
    for seed in range(24):
        _JOBS[job]((2, 3, 8)[seed % 3], "kNone", seed)


@pytest.mark.compile
@pytest.mark.parametrize("bug", _BUGS)
@pytest.mark.parametrize("job", _JOBS)
def test_what_orders_too_few_threads_is_a_race(job: str, bug: str) -> None:
    for seed in range(4):
        with pytest.raises(RuntimeError, match=_RACE):
            _JOBS[job](2 + seed % 2, bug, seed)


# What a message takes: (release, acquire); the flag is at %rd1, the value in %r2.
_FLAG = "[%rd1], 1;"
_SYS, _GPU, _CLUSTER, _CTA = "sys", "gpu", "cluster", "cta"


def _pair(release: str, acquire: str) -> tuple[str, str]:
    return release, acquire


def _by_store(scope: str, other: str | None = None) -> tuple[str, str]:
    return f"st.release.{scope}.global.u32 {_FLAG}", f"ld.acquire.{other or scope}.global.u32"


def _by_fence(scope: str, other: str | None = None, access: str = _SYS) -> tuple[str, str]:
    return (
        f"fence.acq_rel.{scope}; st.relaxed.{access}.global.u32 {_FLAG}",
        f"ld.relaxed.{access}.global.u32 %r2, [%rd1]; @p; fence.acq_rel.{other or scope};",
    )


def _exchange(ways: tuple[str, str], distance: str, seed: int) -> None:
    """One thread writes, tells another one, and that reads."""
    release, acquire = ways
    load, _, fence = acquire.partition("@p;")
    if "%r2" not in load:
        load += " %r2, [%rd1];"
    body = f"""
    ld.global.u32 %r1, [%rd3];
    mov.u32 %r3, %ctaid.x;
    add.u32 %r1, %r1, %r3;
    setp.ne.u32 %p1, %r0, 0;
    @%p1 bra END;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra READ;
    st.global.u32 [%rd0], 7;
    {release}
    bra END;
    READ:
    {load}
    setp.ne.u32 %p2, %r2, 1;
    @%p2 bra READ;
    {fence}
    ld.global.u32 %r4, [%rd0];
    st.global.u32 [%rd2], %r4;
    END:
    """
    kernel = simulator.load(source(body, 4))["kernel"]
    value, flag, result = (torch.zeros(1, dtype=torch.int32) for _ in range(3))
    machine = simulator.Machine(devices=2, sms=2, seed=seed)
    num_ctas, cluster = {"devices": (1, 1), "clusters": (2, 1), "CTAs": (2, 2)}[distance]
    for device in range(2 if distance == "devices" else 1):
        who = torch.tensor([device], dtype=torch.int32)
        machine.symmetric(who)
        args = [value, flag, result, who]
        machine.launch(kernel, num_ctas, 32, args=args, cluster=cluster, device=device)
    machine.run()
    assert result.item() == 7


_ORDERED = {
    "devices": [
        _by_store(_SYS),
        _by_fence(_SYS),
        _pair(f"membar.sys; st.volatile.global.u32 {_FLAG}", "ld.volatile.global.u32 %r2, [%rd1]; "
              "@p; membar.sys;"),
        _pair(f"red.release.sys.global.add.u32 {_FLAG}", "ld.acquire.sys.global.u32"),
        _pair(f"fence.acq_rel.sys; red.relaxed.sys.global.add.u32 {_FLAG}",
              "atom.acquire.sys.global.add.u32 %r2, [%rd1], 0;"),
        # A later store of the thread that released is part of the release.
        _pair(f"st.release.sys.global.u32 [%rd1], 5; st.relaxed.sys.global.u32 {_FLAG}",
              "ld.acquire.sys.global.u32"),
        # So is what an earlier, wider fence released.
        _pair(f"fence.acq_rel.sys; fence.acq_rel.cta; st.relaxed.sys.global.u32 {_FLAG}",
              "ld.acquire.sys.global.u32"),
    ],
    "clusters": [
        _by_store(_GPU),
        _by_fence(_GPU, access=_GPU),
        _by_store(_GPU, _SYS),
        _pair(f"membar.gl; st.volatile.global.u32 {_FLAG}", "ld.acquire.gpu.global.u32"),
        _pair(f"atom.release.global.add.u32 %r5, {_FLAG}", "ld.acquire.gpu.global.u32"),
    ],
    "CTAs": [_by_store(_CLUSTER), _by_fence(_CLUSTER), _by_store(_CLUSTER, _GPU)],
}  # fmt: skip
_UNORDERED = {
    "devices": [
        _by_store(_GPU, _SYS),
        _by_store(_SYS, _GPU),
        _by_fence(_GPU, _SYS),
        _by_fence(_SYS, _GPU),
        _by_fence(_SYS, access=_GPU),
        _pair(f"st.relaxed.sys.global.u32 {_FLAG}", "ld.acquire.sys.global.u32"),
        _pair(f"st.global.u32 {_FLAG}", "ld.acquire.sys.global.u32"),
        _pair(f"red.release.global.add.u32 {_FLAG}", "ld.acquire.sys.global.u32"),  # .gpu
        _pair(f"membar.gl; st.volatile.global.u32 {_FLAG}", "ld.acquire.sys.global.u32"),
        _pair(f"st.release.sys.global.u32 {_FLAG}", "ld.volatile.global.u32"),
        _pair(f"st.release.sys.global.u32 {_FLAG}", "ld.volatile.global.u32 %r2, [%rd1]; @p; "
              "membar.cta;"),
    ],
    "clusters": [_by_store(_CLUSTER), _by_store(_CTA, _GPU), _by_store(_GPU, _CTA), _by_fence(_CTA),
                 _by_fence(_GPU, access=_CLUSTER)],
    "CTAs": [_by_store(_CTA), _by_store(_CLUSTER, _CTA), _by_fence(_CTA, _GPU)],
}  # fmt: skip


def _each(ways: dict[str, list[tuple[str, str]]]) -> pytest.MarkDecorator:
    cases = [(distance, way) for distance, all_ in ways.items() for way in all_]
    return pytest.mark.parametrize(("distance", "ways"), cases)


@_each(_ORDERED)
def test_a_scope_that_has_both_threads_orders_them(distance: str, ways: tuple[str, str]) -> None:
    for seed in range(20):
        _exchange(ways, distance, seed)


@_each(_UNORDERED)
def test_a_narrower_scope_does_not(distance: str, ways: tuple[str, str]) -> None:
    for seed in range(4):
        with pytest.raises(RuntimeError, match=r"^data race: "):
            _exchange(ways, distance, seed)


def test_a_race_on_an_atomic_flag_tells_of_the_scopes() -> None:
    with pytest.raises(RuntimeError, match="both are atomic, in a scope that does not have both"):
        _exchange(_by_store(_GPU), "devices", 0)


def test_atomic_operations_hand_on_what_was_released_before() -> None:
    # Device 0 releases, device 1 adds without a release, device 2 acquires; a store in the place of
    # the addition would end the chain.
    def chain(middle: str) -> None:
        body = f"""
        ld.global.u32 %r1, [%rd3];
        setp.ne.u32 %p1, %r0, 0;
        @%p1 bra END;
        setp.eq.u32 %p1, %r1, 1;
        @%p1 bra ADD;
        setp.eq.u32 %p1, %r1, 2;
        @%p1 bra READ;
        st.global.u32 [%rd0], 7;
        st.release.sys.global.u32 [%rd1], 1;
        bra END;
        ADD: ld.relaxed.sys.global.u32 %r2, [%rd1];
        setp.ne.u32 %p2, %r2, 1;
        @%p2 bra ADD;
        {middle}
        bra END;
        READ: ld.relaxed.sys.global.u32 %r2, [%rd1];
        setp.ne.u32 %p2, %r2, 2;
        @%p2 bra READ;
        ld.acquire.sys.global.u32 %r2, [%rd1];
        ld.global.u32 %r4, [%rd0];
        st.global.u32 [%rd2], %r4;
        END:
        """
        kernel = simulator.load(source(body, 4))["kernel"]
        value, flag, result = (torch.zeros(1, dtype=torch.int32) for _ in range(3))
        machine = simulator.Machine(devices=3)
        for device in range(3):
            who = machine.symmetric(torch.tensor([device], dtype=torch.int32))
            machine.launch(kernel, 1, 32, args=[value, flag, result, who], device=device)
        machine.run()
        assert result.item() == 7

    chain("red.relaxed.sys.global.add.u32 [%rd1], 1;")
    for broken in (
        "st.relaxed.sys.global.u32 [%rd1], 2;",
        "red.relaxed.gpu.global.add.u32 [%rd1], 1;",
    ):
        with pytest.raises(RuntimeError, match="data race"):
            chain(broken)


# Two devices: thread 0 of the first waits for an mbarrier that nobody completes.
_STUCK = """
ld.global.u32 %r1, [%rd1];
setp.ne.u32 %p1, %r0, 0;
@%p1 bra END;
setp.ne.u32 %p1, %r1, 0;
@%p1 bra FLAG;
mov.u32 %r2, barrier;
mbarrier.init.shared::cta.b64 [%r2], 1;
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
@!%p2 bra WAIT;
st.release.sys.global.u32 [%rd0], 1;
bra END;
FLAG: ld.acquire.sys.global.u32 %r3, [%rd0];
setp.ne.u32 %p2, %r3, 1;
@%p2 bra FLAG;
END:
"""


def test_a_deadlock_across_devices_names_them() -> None:
    kernel = simulator.load(source(_STUCK, 2, ".shared .align 8 .b64 barrier;"))["kernel"]
    flag = torch.zeros(1, dtype=torch.int32)
    machine = simulator.Machine(devices=2)
    for device in range(2):
        who = machine.symmetric(torch.tensor([device], dtype=torch.int32))
        machine.launch(kernel, 1, 32, args=[flag, who], device=device)
    with pytest.raises(RuntimeError) as raised:
        machine.run()
    text = str(raised.value)
    assert text.startswith("deadlock: ")
    assert re.search(r"device 0 CTA \(0, 0, 0\) warp 0: 1 lanes at mbarrier.try_wait", text)
    assert re.search(r"device 1 CTA \(0, 0, 0\) warp 0: 1 lanes at (ld.acq|setp|bra)", text)


def test_a_device_reaches_its_arguments_and_symmetric_memory_alone() -> None:
    kernel = simulator.load(source("st.global.u32 [%rd1], 1;", 2))["kernel"]
    own, other = torch.zeros(1, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    address = other.data_ptr()
    kernel_args = [own, address]
    with pytest.raises(RuntimeError, match=r"out of bounds: .* st.global.u32"):
        _launch_on_both(kernel, kernel_args, [])
    _launch_on_both(kernel, [own, address + 4], [other[1:]])
    assert other.tolist() == [0, 1]
    with pytest.raises(RuntimeError, match=r"out of bounds: .* 4 bytes before symmetric\[0\]"):
        _launch_on_both(kernel, kernel_args, [other[1:]])


def _launch_on_both(
    kernel: simulator.Kernel, args: list[Tensor | float | bytes], symmetric: list[Tensor]
) -> None:
    machine = simulator.Machine(devices=2)
    for tensor in symmetric:
        assert machine.symmetric(tensor) is tensor
    machine.launch(kernel, 1, 1, args=args, device=1)
    machine.run()


_WRITE = "st.global.u32 [%rd0], 7; griddepcontrol.launch_dependents;"
_READ = "{wait} ld.global.u32 %r1, [%rd0]; st.global.u32 [%rd1], %r1;"


def _follow(wait: str, *, programmatic: bool, device: int, seed: int) -> int:
    first = simulator.load(source(_WRITE, 1))["kernel"]
    second = simulator.load(source(_READ.format(wait=wait), 2))["kernel"]
    value, result = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    machine = simulator.Machine(devices=2, seed=seed)
    machine.launch(first, 1, 1, args=[value])
    machine.launch(second, 1, 1, args=[value, result], device=device, programmatic=programmatic)
    machine.run()
    return int(result.item())


def test_launches_of_a_device_follow_one_another() -> None:
    wait = "griddepcontrol.wait;"
    for seed in range(20):
        assert _follow("", programmatic=False, device=0, seed=seed) == 7
        assert _follow(wait, programmatic=True, device=0, seed=seed) == 7


def test_an_early_launch_that_does_not_wait_races() -> None:
    for seed in range(20):
        with pytest.raises(RuntimeError, match=r"data race: .* ld.global.u32"):
            _follow("", programmatic=True, device=0, seed=seed)


def test_launches_of_two_devices_do_not_follow_one_another() -> None:
    races = 0
    for seed in range(20):
        try:
            _follow("griddepcontrol.wait;", programmatic=True, device=1, seed=seed)
        except RuntimeError as error:
            assert "data race" in str(error)  # noqa: PT017 (reading first goes unseen)
            races += 1
    assert races > 0


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([torch.zeros(4)], "tensors must be 2, one per device, got 1"),
        ([torch.zeros(4), torch.zeros(5)], "must have one size above 0, got bytes [16, 20]"),
        ([torch.zeros(0), torch.zeros(0)], "must have one size above 0"),
        ([torch.zeros(4, 4).T, torch.zeros(4, 4)], "must be contiguous and on the CPU"),
        ([torch.zeros(5)[1:], torch.zeros(4)], "must be aligned to 16 bytes"),
    ],
)
def test_multicast_ranges_that_cannot_be(tensors: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        simulator.Machine(devices=2).multicast(tensors)
