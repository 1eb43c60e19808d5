"""What may listen where a Ray head is looked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import smallpond
from smallpond.errors import PlanError
from smallpond.executors import ray_address
from smallpond.executors.ray_address import reachable
from tests.smallpond.ray_cluster import QUIET_RAY

pytestmark = QUIET_RAY
SETTINGS = bytes([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100])


@contextmanager
def _listener(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that answers one connection in its own way; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def _silent(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


def _greeting(text: bytes) -> Callable[[socket.socket], None]:
    def greet(connection: socket.socket) -> None:
        connection.sendall(text)
        _silent(connection)

    return greet


def _hang_up(connection: socket.socket) -> None:
    connection.recv(24)
    connection.recv(1000)


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (_silent, r"it says b'' and no more within 0\.3 s"),
        (_greeting(SETTINGS[:5]), "it says .* and no more within"),
        (_greeting(b"SSH-2.0-OpenSSH\r\n"), "it begins with b'SSH-2.0-O', which is no gRPC"),
        (_hang_up, r"it ends the connection after b''"),
    ],
    ids=["silent", "half a frame", "ssh", "hangs up"],
)
def test_what_is_no_ray_head_is_told(
    behave: Callable[[socket.socket], None],
    said: str,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_address, "_PATIENCE_S", 0.3)
    with _listener(behave) as place:
        address = form.format(place)
        wrong = rf"^ray_address: what listens at {address} is no Ray head: {said}.* \(give the port"
        with pytest.raises(PlanError, match=wrong):
            reachable(address)


def test_a_session_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would ask such a server for minutes."""
    ray: Any = pytest.importorskip("ray", reason="needs ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            with (
                smallpond.init(
                    ray_address=f"127.0.0.1:{server.server_port}", data_root=str(tmp_path / "root")
                ) as session,
                pytest.raises(PlanError, match=r"is no Ray head: it begins with b'<!DOCTYPE'"),
            ):
                session.from_items([1]).map("item").count()
        finally:
            server.shutdown()
            thread.join()
    assert not (tmp_path / "root").exists()


def test_what_speaks_as_ray_does_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "_PATIENCE_S", 5.0)

    asked = []

    def in_pieces(connection: socket.socket) -> None:
        asked.append(connection.recv(1000))
        connection.sendall(SETTINGS[:4])
        _greeting(SETTINGS[4:])(connection)

    with _listener(in_pieces) as place:
        assert reachable(place) == place
    assert asked == [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])]
    # One with certificates would wait for ours.
    monkeypatch.setenv("RAY_USE_TLS", "1")
    with _listener(_silent) as place:
        assert reachable(f"ray://{place}") == f"ray://{place}"


def test_a_ray_head_is_one(two_nodes: Any) -> None:
    assert reachable(two_nodes.address) == two_nodes.address
