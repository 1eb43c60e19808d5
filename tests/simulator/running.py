"""Small kernels in PTX, and their runs in the simulator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from csrc import simulator

_HEAD = """.version 8.0
.target sm_90a
.address_size 64
{module}
.visible .entry kernel({parameters})
{{
.reg .pred %p<16>;
.reg .b16 %h<32>;
.reg .b32 %r<64>;
.reg .f32 %f<64>;
.reg .f64 %d<16>;
.reg .b64 %rd<64>;
{loads}
mov.u32 %r0, %tid.x;
{body}
ret;
}}
"""


def run(
    body: str,
    args: Sequence[Tensor] = (),
    *,
    module: str = "",
    grid: int = 1,
    block: int = 32,
    cluster: int = 1,
    smem_bytes: int = 0,
    sms: int = 4,
    seed: int = 0,
) -> dict[str, int]:
    """Runs a kernel whose i-th pointer is in %rd<i> and whose thread index is in %r0."""
    kernel = simulator.load(source(body, len(args), module))["kernel"]
    with simulator.Machine(sms=sms, seed=seed) as machine:
        machine.launch(kernel, grid, block, args=list(args), cluster=cluster, smem_bytes=smem_bytes)
        return machine.run()


def source(body: str, num_pointers: int = 0, module: str = "") -> str:
    """The PTX text of such a kernel."""
    names = [f"p{i}" for i in range(num_pointers)]
    return _HEAD.format(
        module=module,
        parameters=", ".join(f".param .u64 {name}" for name in names),
        loads="\n".join(f"ld.param.u64 %rd{i}, [{name}];" for i, name in enumerate(names)),
        body=body,
    )


def per_thread(operation: str, *inputs: Tensor, out: torch.dtype) -> Tensor:
    """What an operation makes of one value per thread: inputs in %rd10, ..., result in %rd20.

    Registers are 64 bits wide here; the operation narrows as it needs.
    """
    result = torch.zeros(32, dtype=out)
    lines = []
    tensors = [*inputs, result]
    for i, tensor in enumerate(tensors):
        size = tensor.element_size()
        lines.append(f"mad.wide.u32 %rd{30 + i}, %r0, {size}, %rd{i};")
        if i < len(inputs):
            lines.append(f"ld.global.b{8 * size} %rd{10 + i}, [%rd{30 + i}];")
    size = result.element_size()
    lines += [operation, f"st.global.b{8 * size} [%rd{30 + len(inputs)}], %rd20;"]
    run("\n".join(lines), tensors)
    return result
