"""The transport of the CPU path: one all-to-all over a torch.distributed group."""

from collections.abc import Callable

import torch
import torch.distributed as dist


def exchange(
    op: str,
    awaited: str,
    group: dist.ProcessGroup,
    outgoing: torch.Tensor,
    counts: tuple[list[int], list[int]],
) -> tuple[torch.Tensor, Callable[[], None]]:
    """Start sending each rank its rows of `outgoing`.

    A message that is longer than its receiver expects makes gloo abort the process: sizes must have
    been agreed on by all ranks.

    Args:
        op: the operation this is part of, and `awaited`, what it waits for: named in errors.
        awaited: see `op`.
        group: gloo group; `outgoing` is sent in the order of its ranks.
        outgoing: [sum(sent), width] any dtype that gloo knows.
        counts: rows sent to each rank, rows received from each rank.

    Returns:
        incoming: [sum(received), width] — valid after the wait.
        wait: returns when it is; raises RuntimeError when a peer was lost.
    """
    sent, received = counts
    incoming = torch.empty(sum(received), outgoing.shape[1], dtype=outgoing.dtype)

    def lost(error: RuntimeError) -> RuntimeError:
        ranks = ", ".join(map(str, dist.get_process_group_ranks(group)))
        return RuntimeError(
            f"{op}: lost group {group.group_name!r} (global ranks {ranks}; this is rank "
            f"{group.rank()} of {group.size()}) while waiting for {awaited} of the other ranks: "
            f"one of them died, or did not make this call within the group's timeout ({error})"
        )

    try:
        work = dist.all_to_all_single(incoming, outgoing, received, sent, group, async_op=True)
    except RuntimeError as error:
        raise lost(error) from error

    def wait() -> None:
        try:
            work.wait()
        except RuntimeError as error:
            raise lost(error) from error

    return incoming, wait
