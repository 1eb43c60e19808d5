"""Random arguments of Machine and launch: wrong sizes, wrong types, tensors that are not there."""

import functools
from random import Random
from typing import Any

import torch

from csrc import simulator
from tests.simulator.fuzz import cases
from tests.simulator.running import source

_BODY = """
.shared .align 16 .b8 buffer[64];
mov.u32 %r1, %nctaid.x;
mov.u32 %r2, %ntid.y;
add.u32 %r3, %r1, %r2;
mad.wide.u32 %rd5, %r0, 4, %rd0;
st.global.u32 [%rd5], %r3;
"""


@functools.cache
def _kernel() -> simulator.Kernel:
    return simulator.load(source(_BODY, 1))["kernel"]


def play(random: Random, note: Any) -> str:
    """Launches one kernel with some arguments that it cannot have, and tells how that ended."""
    options = _options(random)
    machine_options = {"seed": random.getrandbits(64), "max_instructions": cases.MAX_INSTRUCTIONS}
    for name, choices in (("devices", _COUNTS), ("sms", _COUNTS), ("seed", _COUNTS)):
        if random.random() < 0.08:
            machine_options[name] = random.choice(choices)
    note(f"// {_told(machine_options)} {_told(options)}\n")
    with cases.outcome() as outcome:
        machine = simulator.Machine(**machine_options)
        for _ in range(random.choice([0, 1, 1, 1, 1, 2])):
            machine.launch(_kernel(), **options)
        if random.random() < 0.3:
            _take_away(random, options["args"])
        del options
        torch.full((64,), 7)  # in what was freed, if anything was
        machine.run()
    return outcome[-1] if outcome else "ran"


_COUNTS: list[Any] = [
    -1,
    0,
    1,
    2,
    3,
    2**31 - 1,
    2**31,
    2**63,
    2**64,
    2**70,
    10**6000,
    1.5,
    "4",
    None,
    True,
]
_SHAPES: list[Any] = [
    *_COUNTS,
    *([], [1], [2, 2], (1, 1, 1), (1, 1, 1, 1), (2, 3, 4), [0, 1, 1], (1, 65536, 1), (1, 1, 65)),
    *(
        [1024, 1024, 1024],
        (32, 1.0),
        ("1",),
        [None],
        torch.tensor([2, 1]),
        (2**31 - 1, 65535, 65535),
    ),
]


def _tensors(random: Random) -> Any:
    base = torch.arange(4096, dtype=torch.int32)
    emptied = torch.zeros(4096)
    emptied.untyped_storage().resize_(0)
    return random.choice(
        [
            *(base, base[::2], base.view(64, 64).T, base[:0], base[:1].expand(64), base[:8]),
            *(torch.zeros(4, device="meta"), torch.zeros(3, 3).to_sparse(), emptied),
            *(torch.zeros(()), torch.zeros(1 << 14, dtype=torch.bool), torch.zeros(64).cfloat()),
        ]
    )


def _options(random: Random) -> dict[str, Any]:
    options: dict[str, Any] = {"grid": 1, "block": 32, "args": [torch.zeros(4096)]}
    for name in random.sample(
        ["grid", "block", "cluster", "smem_bytes", "device", "args", "memory"], random.randrange(4)
    ):
        if name in {"grid", "block", "cluster"}:
            options[name] = random.choice(_SHAPES)
        elif name in {"smem_bytes", "device"}:
            options[name] = random.choice([*_COUNTS, 227 * 1024, 227 * 1024 + 1])
        else:
            values = [*_COUNTS, b"", b"12345678", float("nan"), [], object(), _tensors(random)]
            count = random.choice([0, 1, 1, 1, 2])
            options[name] = [
                _tensors(random) if random.random() < 0.5 else random.choice(values)
                for _ in range(count)
            ]
    return options


def _told(value: Any) -> str:
    """A text of all of it; torch cannot print every tensor."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={_told(given)}" for name, given in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{list(value.shape)} on {value.device}"
    return f"2**{value.bit_length()}" if isinstance(value, int) and value > 2**99 else repr(value)


def _take_away(random: Random, args: Any) -> None:
    """Frees or moves the memory of a tensor between launch and run."""
    for tensor in args:
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
            continue
        if tensor.layout is torch.strided and tensor.is_contiguous():
            if random.random() < 0.5:
                tensor.untyped_storage().resize_(0)
            else:
                tensor.resize_(1 << 16)
