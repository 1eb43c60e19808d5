"""What a piece of device work is for, told from its name: compute, communication, waiting or copy.

The built-in rules look at the name of the function alone, without template arguments and
parameters: those of an elementwise kernel may name anything. They are ordered, and the first that
matches decides. What a user's rules say comes before them, and sees the whole name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from benchmarks.trace.model import NONE, Ints, Kind, Trace


class Role(StrEnum):
    """Which part of an operation a kernel does, where data travels on without any kernel."""

    WHOLE = ""
    SEND = "send"
    RECEIVE = "receive"
    ALTERNATE = "alternate"  # sends and receives in turn, under one name


@dataclass(frozen=True, slots=True)
class Rule:
    """Names that `match` finds, on streams whose label `stream` finds, are of this kind.

    Without an `operation`, the name tells it.
    """

    match: re.Pattern[str]
    kind: Kind
    operation: str = ""
    role: Role = Role.WHOLE
    stream: re.Pattern[str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What the rules say of each of n pieces of work.

    Attributes:
        kinds: [n] int64 — `Kind`.
        operation: [n] int64 — index in `operations`, NONE for what is no communication.
        operations: the distinct operations.
        role: [n] int64 — index in `tuple(Role)`.
    """

    kinds: Ints
    operation: Ints
    operations: tuple[str, ...]
    role: Ints


Verdict = tuple[Kind, str, Role]

# The first whose pattern a name contains, letters alone, is its operation.
_OPERATIONS = {
    "dispatch": "dispatch",
    "combine": "combine",
    "notify": "notify",
    "reduce_scatter": "reducescatter",
    "all_reduce": "allreduce|crossdevicereduce",
    "all_gather": "allgather",
    "all_to_all": "alltoall",
    "broadcast": "broadcast",
    "barrier": "barrier",
    "gradient sync": "gradientsync",
    "peer copy": "memcpyptop",
    "wait": "waittensor|waitsignal",
    "send/recv": "send|recv|receive|putsignal",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
}

_EP = r"\b(deep_ep|dpsk::ep|openweek::deepep)::(\w+::)*"
_BUILT_IN: tuple[tuple[Kind, Role, str], ...] = (
    (Kind.PAYLOAD, Role.WHOLE, r"^Memcpy PtoP"),
    (Kind.COPY, Role.WHOLE, r"^Mem(cpy|set)"),
    # Inductor names a kernel after all that it fused, collectives that it waited for included.
    (Kind.COMPUTE, Role.WHOLE, r"^triton_[a-z]+_fused_"),
    (Kind.WAITING, Role.WHOLE, _EP + r"(cached_notify|notify|barrier|clean)\w*$"),
    # It counts tokens per rank from local indices: nothing moves, nobody waits.
    (Kind.COMPUTE, Role.WHOLE, _EP + r"get_dispatch_layout$"),
    (Kind.PAYLOAD, Role.ALTERNATE, r"(internode_ll|low_latency)::(\w+::)*(dispatch|combine)\w*$"),
    (Kind.PAYLOAD, Role.ALTERNATE, r"(dispatch|combine)_(ll|low_latency)"),
    (Kind.PAYLOAD, Role.ALTERNATE, r"(ll|low_latency)_(dispatch|combine)"),
    (Kind.PAYLOAD, Role.WHOLE, _EP + r"(dispatch|combine)\w*$"),
    (Kind.WAITING, Role.WHOLE, r"\b(notify|barrier)\w*_sm90_kernel$"),
    (Kind.PAYLOAD, Role.WHOLE, r"\b(dispatch|combine)\w*_sm90_kernel$"),
    # Spans of our own runs.
    (Kind.PAYLOAD, Role.WHOLE, r"^((dispatch|combine)( backward)?|send|receive|gradient sync)$"),
    (Kind.WAITING, Role.WHOLE, r"nvshmem\w*(barrier|sync|wait|quiet)|barrier_on_stream_kernel"),
    (Kind.PAYLOAD, Role.WHOLE, r"nvshmem"),
    # CPU operators of torch.distributed.
    (Kind.WAITING, Role.WHOLE, r"c10d(_functional)?::(barrier|monitored_barrier|wait_tensor)"),
    (Kind.WAITING, Role.WHOLE, r"^(nccl|gloo|mpi|ucc):(monitored_)?barrier"),
    (Kind.PAYLOAD, Role.WHOLE, r"^_?c10d(_functional)?::|^record_param_comms$"),
    (Kind.PAYLOAD, Role.WHOLE, r"^(nccl|gloo|mpi|ucc):"),
    (Kind.PAYLOAD, Role.WHOLE, r"^(void )?(nccl|msccl)\w*Kernel"),
    # Symmetric memory of torch, all-reduces of serving engines.
    (Kind.WAITING, Role.WHOLE, r"(\b|_)(barrier|wait_signal)_kernel$"),
    (Kind.PAYLOAD, Role.WHOLE, r"\bput_signal_kernel$|\bcross_device_reduce"),
    (Kind.PAYLOAD, Role.WHOLE, r"(?i)all_?reduce|all_?gather|reduce_?scatter|all_?to_?all"),
    # Schedule steps, and operators of torch.profiler.
    (Kind.COMPUTE, Role.WHOLE, r"^(PP:|aten::|autograd::|torch::|Optimizer\.)|Backward\d+$"),
    (Kind.COMPUTE, Role.WHOLE, r"\b(at|c10|cutlass|cute|cub|thrust|flash|cudnn|dpsk(?!::ep))::"),
    (Kind.COMPUTE, Role.WHOLE, r"(?i)gemm|gemv|cublas|cutlass|nvjet|xmma|splitk|flash|fmha|triton"),
    (Kind.COMPUTE, Role.WHOLE, r"(?i)attention|(^|_)attn|(^|_)mla(_|$)|expert|optimizer|adam"),
    (
        Kind.COMPUTE,
        Role.WHOLE,
        r"(?i)(layer|rms|batch|group)_?norm|softmax|rotary|swiglu|silu|gelu",
    ),
    (Kind.COMPUTE, Role.WHOLE, r"(?i)elementwise|transpose|cudnn|convolve|^weight grad$"),
    (Kind.COMPUTE, Role.WHOLE, r"(?i)(?<!broad)cast(_|\b)|quant|embedding|(^|_)topk"),
)
BUILT_IN = tuple(Rule(re.compile(text), kind, role=role) for kind, role, text in _BUILT_IN)

# Copies of other profilers bear names of their own ("CopyHostToDevice"), in these categories.
_COPY_CATEGORIES = {"gpu_memcpy", "gpu_memset", "memcpy", "memset"}
_INNERMOST_BRACKETS = re.compile(r"<[^<>()]*>|\([^<>()]*\)")

_COMMUNICATION = (Kind.PAYLOAD, Kind.WAITING)


def classify(trace: Trace, user_rules: Sequence[Rule] = ()) -> Labels:
    """Applies the user's rules, then the built-in ones, to all work of a trace."""
    work = trace.work
    stream = work.stream if any(rule.stream for rule in user_rules) else np.zeros_like(work.stream)
    num_names, num_streams = max(len(trace.names), 1), max(len(trace.streams), 1)
    key = (work.name * num_names + work.category) * num_streams + stream
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    verdicts = [
        verdict(
            trace.names[work.name[index]],
            trace.names[work.category[index]],
            trace.streams[work.stream[index]],
            user_rules,
        )
        for index in first
    ]
    operations = tuple(dict.fromkeys(operation for _, operation, _ in verdicts if operation))
    numbers = {"": NONE} | {operation: number for number, operation in enumerate(operations)}
    roles = list(Role)
    columns = np.array(
        [(kind, numbers[operation], roles.index(role)) for kind, operation, role in verdicts],
        dtype=np.int64,
    ).reshape(-1, 3)[inverse]
    return Labels(columns[:, 0], columns[:, 1], operations, columns[:, 2])


def verdict(name: str, category: str, stream: str, user_rules: Sequence[Rule] = ()) -> Verdict:
    """Returns kind, operation ("" for what is no communication) and role of one piece of work."""
    function = function_name(name)
    for rule in user_rules:
        if rule.match.search(name) and (rule.stream is None or rule.stream.search(stream)):
            return _decided(rule, function)
    for rule in BUILT_IN:
        if rule.match.search(function):
            return _decided(rule, function)
    kind = Kind.COPY if category.lower() in _COPY_CATEGORIES else Kind.UNCLASSIFIED
    return kind, "", Role.WHOLE


def function_name(name: str) -> str:
    """Returns a kernel's name without template arguments and parameters.

    >>> function_name("void at::native::reduce_kernel<512, 1, ReduceOp<float> >(ReduceOp<float>)")
    'void at::native::reduce_kernel'
    """
    name = name.replace("(anonymous namespace)::", "")
    while (shorter := _INNERMOST_BRACKETS.sub("", name)) != name:
        name = shorter
    return name.strip()


def _decided(rule: Rule, function: str) -> Verdict:
    if rule.kind not in _COMMUNICATION:
        return rule.kind, "", Role.WHOLE
    return rule.kind, rule.operation or _operation(function), rule.role


def _operation(function: str) -> str:
    letters = re.sub(r"[^a-z]", "", function.lower())
    found = (name for name, text in _OPERATIONS.items() if re.search(text, letters))
    return next(found, "other")
