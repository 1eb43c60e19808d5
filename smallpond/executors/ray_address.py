"""Where a Ray cluster is: Ray itself waits for minutes where nobody answers."""

from __future__ import annotations

import os
import socket
import time

from smallpond.errors import PlanError

_PATIENCE_S = 10.0
# A Ray head is a gRPC server, and gRPC is HTTP/2 (RFC 9113, 3.4 and 4.1): a client begins with
# these bytes and a SETTINGS frame, here an empty one, and the server with a SETTINGS frame.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEAD_BYTES = 9
_SETTINGS = 4


def reachable(address: str) -> str:
    """The address to connect to; something that may be a Ray head listens there.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or "auto" for the cluster that RAY_ADDRESS names or
            that was started on this machine.

    Raises:
        PlanError: it has another form, nothing listens there, or something else does.
    """
    found = _running_here() if address == "auto" else address
    scheme, _, place = found.rpartition("://")
    if scheme not in ("", "ray"):
        return found  # of a plugin of Ray's, which knows where that is
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit():
        raise PlanError(
            f"ray_address: HOST:PORT, ray://HOST:PORT or 'auto' expected, got {address!r}"
        )
    named = address if found == address else f"{address} ({found})"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S) as connection:
            instead = _unlike_ray(connection)
    except (OSError, OverflowError) as error:
        raise PlanError(
            f"ray_address: nothing answers at {named}: {error} (start a cluster there with `ray "
            "start --head`, or leave ray_address out and pass num_executors)"
        ) from error
    if instead:
        raise PlanError(
            f"ray_address: what listens at {named} is no Ray head: {instead} (give the port that "
            "`ray start --head` prints, 6379 by default, or that of ray://, 10001 by default)"
        )
    return found


def only_on_loopback(place: str) -> bool:
    """Whether a head can be reached by this machine's own name for itself alone.

    Ray takes such a name for the machine's address in the network, where this head does not listen.
    """
    scheme, _, address = place.rpartition("://")
    host, _, port = address.rpartition(":")
    if scheme or not (host == "localhost" or host.startswith("127.") or host in ("::1", "[::1]")):
        return False
    from ray._private import services  # noqa: PLC0415

    try:
        own = str(services.get_node_ip_address())  # type: ignore[no-untyped-call]
        socket.create_connection((own, int(port)), _PATIENCE_S).close()
    except OSError:
        return True
    return False


def _unlike_ray(connection: socket.socket) -> str:
    """What a server does that no Ray head does; nothing if it speaks as one."""
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return ""  # it would first want to see certificates, which are Ray's own business
    deadline = time.monotonic() + _PATIENCE_S
    said = b""
    try:
        connection.sendall(_PREFACE)
        while len(said) < _FRAME_HEAD_BYTES:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            more = connection.recv(_FRAME_HEAD_BYTES - len(said))
            if not more:
                return f"it ends the connection after {said!r}"
            said += more
    except TimeoutError:
        return f"it says {said!r} and no more within {_PATIENCE_S:g} s"
    except ConnectionError as error:
        return f"it breaks the connection: {error}"
    return "" if said[3] == _SETTINGS else f"it begins with {said!r}, which is no gRPC"


def _running_here() -> str:
    from ray._private import services  # noqa: PLC0415

    try:
        return str(services.get_ray_address_from_environment("auto", None))
    except ConnectionError as error:
        raise PlanError(
            "ray_address: 'auto' finds no cluster (start one with `ray start --head`, set "
            "RAY_ADDRESS, or leave ray_address out and pass num_executors)"
        ) from error
