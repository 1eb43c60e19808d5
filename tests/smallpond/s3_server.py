"""A real S3 server on loopback: SeaweedFS, from a pip package."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

KEY, SECRET, BUCKET = "openweek", "openweek-secret", "data"


def find_weed() -> str | None:
    """The server's program, which pip puts beside Python's."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("weed", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, Any]]:
    """Starts a server with one bucket; yields the storage options to reach it."""
    weed = find_weed()
    assert weed is not None
    identity = {
        "name": KEY,
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    names = (
        "master",
        "master_grpc",
        "volume",
        "volume_grpc",
        "filer",
        "filer_grpc",
        "s3",
        "s3_grpc",
    )
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    command = [
        *(weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-master.port={ports['master']}", f"-master.port.grpc={ports['master_grpc']}"),
        *(f"-volume.port={ports['volume']}", f"-volume.port.grpc={ports['volume_grpc']}"),
        *(f"-filer.port={ports['filer']}", f"-filer.port.grpc={ports['filer_grpc']}", "-s3"),
        *(f"-s3.port={ports['s3']}", f"-s3.port.grpc={ports['s3_grpc']}", f"-s3.config={config}"),
        # Off, for their ports would be the same in every server of the machine.
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"),
        *("-master.telemetry=false", "-volume.max=20", "-master.volumeSizeLimitMB=64"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            endpoint = f"http://127.0.0.1:{ports['s3']}"
            _wait(endpoint, process, folder / "log")
            options = {
                "key": KEY,
                "secret": SECRET,
                "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"},
            }
            _make_bucket(options)
            yield options
        finally:
            process.kill()  # asked politely, it takes ten seconds
            process.wait()
            for port in ports.values():
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 (its choice)
                    socket_file.unlink()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the gateway answers, if only with a refusal."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(endpoint, timeout=1)  # noqa: S310 (loopback)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text()[-2000:]}")


def _make_bucket(options: dict[str, Any]) -> None:
    """The gateway answers before the rest of the server is ready for writes."""
    filesystem = fsspec.filesystem("s3", **options)
    deadline = time.monotonic() + 60
    while True:
        try:
            if not filesystem.exists(BUCKET):
                filesystem.mkdir(BUCKET)
            filesystem.pipe_file(f"{BUCKET}/ready", b"yes")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
