"""Runs one function on several forked processes that share a gloo group.

Forking after a single ``import torch`` starts eight ranks in about a tenth of a second, where
starting fresh interpreters takes half a minute. The price: on a machine with a GPU, a process that
has used CUDA or run a backward pass cannot fork ranks that do so.

Everything stays on the loopback interface, nothing is written to disk, and no process is left when
``run_ranks`` returns or raises.
"""

import ctypes
import io
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection, get_context
from multiprocessing.context import ForkProcess
from typing import Any, Never

import torch
import torch.distributed as dist

_LOOPBACK = "127.0.0.1"
# How long the parent listens for the cause, once a rank has said that it lost a peer.
_BLAME_PATIENCE_S = 2.0
# gloo raises a plain RuntimeError when a peer goes away; only the text tells.
_LOST_PEER_TEXTS = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused")


@dataclass(frozen=True, slots=True)
class Rank:
    """What a function that runs on a rank knows of its place.

    Attributes:
        rank: 0 .. world_size - 1.
        world_size: number of ranks.
        report: sends a picklable object to the parent's ``on_report``; call it from one thread.
    """

    rank: int
    world_size: int
    report: Callable[[Any], None]


class RankFailed(RuntimeError):  # noqa: N818 - reads as the sentence it prints
    """A rank raised, died or was too late; the rank's own traceback is attached as a note."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """An exception of a rank, as text: the exception itself may not survive pickling."""

    text: str
    trace: str
    lost_peer: bool


@dataclass(slots=True)
class _Worker:
    """The parent's view of one rank."""

    name: str
    rank: int
    process: ForkProcess
    reader: connection.Connection
    last_report: Any = None
    result: Any = None


def run_ranks(
    fn: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout_s: float,
    on_report: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """Calls ``fn(rank, *args)`` on forked ranks and returns the results in rank order.

    Each rank has the default ``torch.distributed`` group (gloo) initialised and one torch thread.
    Arguments are inherited by the fork; results and reports come back by value, tensors included.

    Args:
        fn: the function to run; its first argument is a ``Rank``.
        world_size: number of ranks, at least 1.
        *args: passed on to ``fn``.
        timeout_s: seconds after which ranks that are still running are ended.
        on_report: called in this process as ``on_report(rank, obj)`` for each ``Rank.report(obj)``.

    Raises:
        ValueError: world_size or timeout_s is out of range.
        RankFailed: a rank raised, was killed, or was still running after timeout_s. When several
            failed, it names the one that failed by itself, not those that lost a peer.
    """
    if world_size < 1:
        raise ValueError(f"run_ranks: world_size must be at least 1, got {world_size}")
    if not timeout_s > 0:
        raise ValueError(f"run_ranks: timeout_s must be positive, got {timeout_s}")

    def call(rank: Rank) -> Any:
        return fn(rank, *args)

    workers: list[_Worker] = []
    try:
        # The listening socket exists before the first fork, so that no rank can miss the port.
        with socket.create_server((_LOOPBACK, 0), backlog=world_size) as server:
            for rank in range(world_size):
                worker = _start(rank, world_size, server, timeout_s, call)
                workers.append(worker)  # one by one: those started are ended if the next one fails
        _collect(workers, timeout_s, on_report)
        return [worker.result for worker in workers]
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.process.close()
            worker.reader.close()


def die_with_parent(parent_pid: int) -> None:
    """Makes the kernel kill this process when its parent ends, however that ends (Linux only)."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the call above
        os.kill(os.getpid(), signal.SIGKILL)


def start_forked(target: Callable[..., Any], *args: Any, daemon: bool) -> ForkProcess:
    """Starts ``target(*args)`` in a forked process; a daemon may not start processes itself."""
    process = get_context("fork").Process(target=target, args=args, daemon=daemon)
    with warnings.catch_warnings():
        # Python 3.12 and later warn of any fork beside threads. Those of torch and of a progress
        # bar hold no lock that a rank takes.
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        process.start()
    return process


def to_bytes(obj: Any) -> bytes:
    """Pickles, tensors of any dtype by value: Connection.send would share memory files instead."""
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    return buffer.getvalue()


def from_bytes(payload: bytes) -> Any:
    """Undoes ``to_bytes``; only for what this program's own forked processes wrote."""
    return torch.load(io.BytesIO(payload), weights_only=False)


def _start(
    rank: int,
    world_size: int,
    server: socket.socket,
    timeout_s: float,
    call: Callable[[Rank], Any],
) -> _Worker:
    reader, writer = connection.Pipe(duplex=False)
    with writer:  # closed here once forked: the end of the rank is then the end of the stream
        job = (os.getpid(), rank, world_size, server, timeout_s, writer, call)
        # A daemon: at exit Python would wait for a rank that Ctrl-C kept from being returned here.
        process = start_forked(_rank_main, *job, daemon=True)
    return _Worker(f"rank {rank} of {world_size}", rank, process, reader)


# ---- in the rank ---------------------------------------------------------------------------------


def _rank_main(
    parent_pid: int,
    rank: int,
    world_size: int,
    server: socket.socket,
    timeout_s: float,
    writer: connection.Connection,
    call: Callable[[Rank], Any],
) -> Never:
    die_with_parent(parent_pid)
    # The parent's handlers are not for a rank; Ctrl-C reaches ranks too, but the parent answers it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(kind: str, content: Any) -> None:
        writer.send_bytes(to_bytes((kind, content)))

    try:
        _join_group(rank, world_size, server, timeout_s)
        send("result", call(Rank(rank, world_size, lambda obj: send("report", obj))))
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is told, SystemExit too
        send("failure", _describe(error))
    sys.stdout.flush()
    sys.stderr.flush()
    # Stay, with all connections open, until the parent ends every rank at once: rank 0 serves the
    # store, and a peer may still be reading what this rank sent.
    while True:
        signal.pause()


def _join_group(rank: int, world_size: int, server: socket.socket, timeout_s: float) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo" if sys.platform == "linux" else "lo0"
    port = server.getsockname()[1]
    listener = server.detach()
    if rank != 0:
        os.close(listener)
    # Twice: the parent gives up first, because its message is the better one.
    timeout = timedelta(seconds=2 * timeout_s)
    store = dist.TCPStore(  # type: ignore[attr-defined]  # public, but in no __all__
        _LOOPBACK,
        port,
        world_size,
        is_master=rank == 0,
        timeout=timeout,
        wait_for_workers=False,
        master_listen_fd=listener if rank == 0 else None,
    )
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)


def _describe(error: BaseException) -> _Failure:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    lost_peer = any(
        isinstance(link, ConnectionError | dist.DistNetworkError)
        or any(text in str(link) for text in _LOST_PEER_TEXTS)
        for link in chain
    )
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return _Failure(text, "".join(traceback.format_exception(error)), lost_peer)


# ---- in the parent -------------------------------------------------------------------------------


def _collect(
    workers: list[_Worker], timeout_s: float, on_report: Callable[[int, Any], None] | None
) -> None:
    """Receives until every rank has sent its result, or it is clear which one to blame."""
    deadline = time.monotonic() + timeout_s
    running = {worker.reader: worker for worker in workers}
    lost_peer: RankFailed | None = None
    while running:
        ready = connection.wait(list(running), max(0.0, deadline - time.monotonic()))
        if not ready:
            raise lost_peer or _timed_out(list(running.values()), timeout_s)
        for worker in [running[reader] for reader in list(running) if reader in ready]:
            kind, content = _receive(worker)
            if kind == "report":
                worker.last_report = content
                if on_report is not None:
                    on_report(worker.rank, content)
                continue
            del running[worker.reader]
            if kind == "result":
                worker.result = content
                continue
            failed = RankFailed(f"{worker.name} failed: {content.text}")
            failed.add_note(f"{worker.name}:\n{content.trace}")
            if not content.lost_peer:
                raise failed
            if lost_peer is None:
                lost_peer = failed
                deadline = min(deadline, time.monotonic() + _BLAME_PATIENCE_S)
    if lost_peer is not None:
        raise lost_peer


def _receive(worker: _Worker) -> tuple[str, Any]:
    try:
        payload = worker.reader.recv_bytes()
    except (EOFError, OSError):  # OSError when it was cut off in the middle of a message
        raise _died(worker) from None
    kind, content = from_bytes(payload)
    return kind, content


def _died(worker: _Worker) -> RankFailed:
    worker.process.join()
    status = worker.process.exitcode
    if status is None or status >= 0:
        return RankFailed(f"{worker.name} exited with status {status} before it returned a result")
    name = signal.Signals(-status).name
    hint = "; often out of memory" if -status == signal.SIGKILL else ""
    return RankFailed(f"{worker.name} was killed by signal {-status} ({name}{hint})")


def _timed_out(late: list[_Worker], timeout_s: float) -> RankFailed:
    numbers = ", ".join(str(worker.rank) for worker in late)
    reports = ", ".join(
        f"rank {worker.rank}: {worker.last_report!r}"
        for worker in late
        if worker.last_report is not None
    )
    noun, verb = ("rank", "was") if len(late) == 1 else ("ranks", "were")
    return RankFailed(
        f"{noun} {numbers} {verb} still running after {timeout_s:g} s"
        f" (last reports: {reports or 'none'})"
    )
