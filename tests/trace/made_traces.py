"""Traces for tests of the page, made in columns: a training step, a decode step, many events."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.trace.model import NONE, Phases, Trace, Work

NAMES = {
    "gemm": "void openweek::deepgemm::fp8_gemm_nt_sm90_kernel<128, 128, 4>(Params)",
    "attention": "void openweek::flashmla::flash_mla_dense_sm90_kernel<64, 576>(Params)",
    "norm": "void at::native::vectorized_layer_norm_kernel<float, float>(int, float)",
    "swiglu": "triton_poi_fused_mul_silu_0",
    "dispatch": "void openweek::deepep::dispatch_sm90_kernel<8>(Params)",
    "combine": "void openweek::deepep::combine_sm90_kernel<8>(Params)",
    "notify": "void deep_ep::internode::notify_dispatch<false, 16>(int const*, int*)",
}


@dataclass(slots=True)
class Sketch:
    """Work and phases as they are thought of, one after the other; `trace` makes columns of them.

    Attributes:
        work: (begin, duration, name, stream, phase, blocks).
        phases: (begin, duration, name, parent).
    """

    work: list[tuple[float, float, str, int, int, int]] = field(default_factory=list)
    phases: list[tuple[float, float, str, int]] = field(default_factory=list)

    def phase(self, begin: float, duration: float, name: str, parent: int = NONE) -> int:
        self.phases.append((begin, duration, name, parent))
        return len(self.phases) - 1

    def trace(self, title: str = "rank 0", streams: Sequence[str] = ("stream 7",)) -> Trace:
        work = sorted(self.work, key=lambda piece: piece[0])
        names = list(dict.fromkeys([w[2] for w in work] + [p[2] for p in self.phases]))
        index = {name: number for number, name in enumerate(names)}
        begin, duration, name, stream, phase, blocks = zip(*work, strict=True) if work else [()] * 6
        phase_begin, phase_duration, phase_name, parent = (
            zip(*self.phases, strict=True) if self.phases else [()] * 4
        )
        return Trace(
            title=title,
            names=(*names, ""),
            streams=tuple(streams),
            work=Work(
                np.array(begin, float),
                np.array(duration, float),
                np.array([index[text] for text in name], np.int64),
                np.full(len(work), len(names)),
                np.array(stream, np.int64),
                np.array(phase, np.int64),
                np.array(blocks, np.int64),
            ),
            phases=Phases(
                np.array(phase_begin, float),
                np.array(phase_duration, float),
                np.array([index[text] for text in phase_name], np.int64),
                np.array(parent, np.int64),
            ),
            num_sms=132,
        )


# What a pair of one forward and one backward chunk runs, beside one another: (compute, how many
# kernels, communication); the order of DeepSeek-V3's report, figure 4.
_PAIR = (
    ("mlp(B)", "gemm", 5, "dispatch(F)", "dispatch"),
    ("mlp(W)", "gemm", 3, "dispatch(B)", "dispatch"),
    ("mlp(F)", "gemm", 5, "", ""),
    ("attn(B)", "attention", 6, "combine(F)", "combine"),
    ("attn(W)", "gemm", 3, "", ""),
    ("attn(F)", "attention", 4, "combine(B)", "combine"),
)


def training_step(num_layers: int = 4, seed: int = 0, title: str = "rank 0") -> Trace:
    """A forward-backward pair of DualPipe: computation on stream 7, communication on 27."""
    random = np.random.default_rng(seed)
    sketch, now, network = Sketch(), 40.0, 40.0
    whole = sketch.phase(0.0, 430.0 * num_layers, "1F1B")
    for layer in range(num_layers):
        program = 10.0 + 420.0 * layer
        outer = sketch.phase(program, 400.0, f"layer {layer}", whole)
        for place, (phase_name, kernel, count, exchange, moved) in enumerate(_PAIR):
            begin = program + 60.0 * place
            phase = sketch.phase(begin, 35.0, phase_name, outer)
            if exchange:
                other = sketch.phase(begin + 37.0, 20.0, exchange, outer)
                network = max(network, now - 20.0)
                if moved == "dispatch":
                    sketch.work.append((network, 9.0, NAMES["notify"], 1, other, 20))
                    network += 9.5
                length = float(random.uniform(150, 260))
                sketch.work.append((network, length, NAMES[moved], 1, other, 20))
                network += length + 2.0
            for number in range(count):
                name = NAMES[(kernel, kernel, "norm", "swiglu")[number % 4]]
                length = float(random.uniform(18, 75))
                sketch.work.append((now, length, name, 0, phase, 112))
                now += length + float(random.uniform(0.5, 3))
        now = max(now, network - 60.0)
    sketch.work.append((now + 5.0, 3.0, "Memcpy DtoD (Device -> Device)", 0, NONE, 0))
    return sketch.trace(title, ("stream 7", "stream 27"))


def schedule_step(title: str = "simulated rank 0") -> Trace:
    """Steps of a schedule, as simulations and the end-to-end run write them."""
    sketch, now = Sketch(), 0.0
    steps = [*(f"PP:0F{i}" for i in range(4)), "PP:7F0", "PP:7I0", "PP:7W0"]
    for pair in range(5):
        steps += [f"PP:(0F{pair + 4};7B{pair + 1})OVERLAP_F_B", f"PP:7F{pair + 1}"]
    steps += ["PP:0B5", "PP:0I6", "PP:0W6"]
    for step in steps:
        length = 150.0 if "OVERLAP" in step else 90.0
        sketch.work.append((now, length, step, 0, NONE, 0))
        now += length + (20.0 if step.startswith("PP:7") else 0.0)
    return sketch.trace(title, ("rank 0",))


def decode_step(num_layers: int = 3) -> Trace:
    """Low-latency exchange on one stream: what is under way is hidden by the other micro-batch."""
    sketch, now = Sketch(), 0.0
    dispatch = "void deep_ep::internode_ll::dispatch<true, 3, 7168>(void*, int)"
    combine = "void deep_ep::internode_ll::combine<3, 7168>(void*, int)"
    for _ in range(num_layers):
        for work, exchange in (("attention", dispatch), ("gemm", dispatch), ("gemm", combine)):
            sketch.work.append((now, 6.0, exchange, 0, NONE, 132))
            sketch.work.append((now + 6.5, 70.0, NAMES[work], 0, NONE, 132))
            sketch.work.append((now + 77.0, 8.0, exchange, 0, NONE, 132))
            now += 86.0
    return sketch.trace("decode")


def many_events(count: int, seed: int = 0) -> Trace:
    """So many pieces of work on three streams, with lengths over four powers of ten."""
    random = np.random.default_rng(seed)
    stream = np.sort(random.integers(0, 3, count))
    length = 10 ** random.uniform(-1, 3, count) + 0.05
    step = length * random.uniform(1.0, 1.6, count)
    begin = np.concatenate([np.cumsum(step[stream == s]) - step[stream == s] for s in range(3)])
    order = np.argsort(begin, kind="stable")
    names = np.where(stream == 2, random.integers(4, 7, count), random.integers(0, 4, count))
    none = np.empty(0, np.int64)
    return Trace(
        title=f"{count} events",
        names=(*NAMES.values(), ""),
        streams=("stream 7", "stream 23", "stream 27"),
        work=Work(
            begin[order],
            length[order],
            names[order],
            np.full(count, len(NAMES)),
            stream[order],
            np.full(count, NONE),
            random.integers(1, 140, count),
        ),
        phases=Phases(np.empty(0), np.empty(0), none, none),
        num_sms=132,
    )
