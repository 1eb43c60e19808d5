"""Where a Ray cluster is: Ray itself waits for minutes where nobody answers."""

from __future__ import annotations

import socket

from smallpond.errors import PlanError

_PATIENCE_S = 10.0


def reachable(address: str) -> str:
    """The address to connect to; something listens there.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or "auto" for the cluster that RAY_ADDRESS names or
            that was started on this machine.

    Raises:
        PlanError: it has another form, or nothing listens there.
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
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()
    except (OSError, OverflowError) as error:
        named = address if found == address else f"{address} ({found})"
        raise PlanError(
            f"ray_address: nothing answers at {named}: {error} (start a cluster there with `ray "
            "start --head`, or leave ray_address out and pass num_executors)"
        ) from error
    return found


def _running_here() -> str:
    from ray._private import services  # noqa: PLC0415

    try:
        return str(services.get_ray_address_from_environment("auto", None))
    except ConnectionError as error:
        raise PlanError(
            "ray_address: 'auto' finds no cluster (start one with `ray start --head`, set "
            "RAY_ADDRESS, or leave ray_address out and pass num_executors)"
        ) from error
