"""A worker process on this machine, and the pipe to it.

It is started as a program of its own, not forked: forking a process with DuckDB's threads in it is
unsafe, and the standard library's other ways run the user's main module again. Messages are pickles
on a socket pair that only the two processes have.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from smallpond.errors import NonzeroExitCode, TaskError
from smallpond.task import Attempt, Result

_LENGTH = struct.Struct("<Q")
_count = itertools.count()


class Process:
    """One worker process, doing one attempt at a time."""

    def __init__(self) -> None:
        self.name = f"process-{next(_count)}"
        self._socket, child = socket.socketpair()
        self._popen = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-c", _START, str(child.fileno())],
            pass_fds=[child.fileno()],
            stdin=subprocess.DEVNULL,
            process_group=0,  # a terminal's Ctrl-C is the driver's, while this starts as well
            env={**os.environ, "PYTHONPATH": _search_path()},
        )
        child.close()
        self._greeted = False

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def run(self, attempt: Attempt) -> Result | BaseException:
        """Has it do an attempt.

        Raises:
            NonzeroExitCode: the process died.
        """
        try:
            if not self._greeted:
                # The same search path, so that functions of importable modules are found.
                send(self._socket, {"path": sys.path, "cwd": str(Path.cwd())})
                self._greeted = True
            send(self._socket, attempt)
            reply = receive(self._socket)
        except (OSError, EOFError) as error:
            raise NonzeroExitCode(self._epitaph()) from error
        assert isinstance(reply, Result | BaseException)  # noqa: S101
        return reply

    def kill(self) -> None:
        """Ends it at once."""
        with suppress(OSError):
            self._popen.kill()
        self._popen.wait()
        self._socket.close()

    def _epitaph(self) -> str:
        try:
            code = self._popen.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            return f"the worker process was ended by {name}{hint}"
        return f"the worker process ended with exit code {code}"


def _search_path() -> str:
    """Where this package lies first, so that the child finds the same one."""
    own = str(Path(__file__).parents[2])
    return os.pathsep.join([own, *filter(None, [os.environ.get("PYTHONPATH")])])


_START = "import sys; from smallpond.executors.process import serve; serve(int(sys.argv[1]))"


def send(sock: socket.socket, value: object) -> None:
    """Sends one message."""
    data = pickle.dumps(value, protocol=5)
    sock.sendall(_LENGTH.pack(len(data)))
    sock.sendall(data)


def receive(sock: socket.socket) -> Any:
    """The next message.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    return pickle.loads(_exactly(sock, length))  # noqa: S301 (from our own child or parent)


def _exactly(sock: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    done = 0
    while done < length:
        got = sock.recv_into(view[done:])
        if not got:
            raise EOFError
        done += got
    return data


def serve(descriptor: int) -> None:
    """The worker's main: does what it is sent until the other end is gone."""
    # Ctrl-C in a terminal reaches all processes; the driver decides what it means for this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sock = socket.socket(fileno=descriptor)
    mailbox: Any = __import__("queue").SimpleQueue()
    threading.Thread(target=_listen, args=(sock, mailbox), daemon=True).start()
    greeting = mailbox.get()
    sys.path[:] = greeting["path"]
    with suppress(OSError):
        os.chdir(greeting["cwd"])
    runner = _Runner()
    while True:
        send(sock, picklable(runner.run(mailbox.get())))


def _listen(sock: socket.socket, mailbox: Any) -> None:
    """Hears at once when the driver dies, even while a user's function runs."""
    try:
        while True:
            mailbox.put(receive(sock))
    except (EOFError, OSError):
        # From a thread, and whatever the main thread is doing.
        os.kill(os.getpid(), signal.SIGKILL)


class _Runner:
    """Runs attempts with one set of DuckDB instances."""

    def __init__(self) -> None:
        self._instances: Any = None

    def run(self, attempt: Attempt) -> Result | BaseException:
        from smallpond.engine.duck import Instances  # noqa: PLC0415
        from smallpond.engine.run import run  # noqa: PLC0415

        settings = attempt.settings
        if self._instances is None:
            self._instances = Instances(settings.temp_root, settings.time_zone)
        try:
            with self._instances.borrow(attempt.cpus, attempt.memory_bytes) as instance:
                return run(attempt, instance)
        except BaseException as error:  # noqa: BLE001 (it belongs to the scheduler)
            return error


def picklable(value: Any) -> Any:
    """The value, or for an error that cannot travel, one that says the same."""
    if not isinstance(value, BaseException):
        return value
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301
    except Exception:  # noqa: BLE001 (whatever a foreign error's pickling raises)
        return TaskError(f"{type(value).__name__}: {value}")
    return value
