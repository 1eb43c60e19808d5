"""A Google Cloud Storage server on loopback: an emulator, from a pip package."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET = "data"


@contextmanager
def gcs_server() -> Iterator[dict[str, Any]]:
    """Starts a server with one bucket; yields the storage options to reach it."""
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    server = _Server(("127.0.0.1", 0), partial(_Handler, storage))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        port = server.server_address[1]
        yield {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(HTTPServer):
    """Serves one request at a time: of several that may create an object, one does."""

    request_queue_size = 256


class _Handler(RequestHandler):  # type: ignore[misc]
    """Creates objects only where there are none, if asked so; the emulator overlooks that."""

    def do_POST(self) -> None:  # noqa: N802 (its name)
        asked = parse_qs(urlsplit(self.path).query)
        if asked.get("ifGenerationMatch") == ["0"]:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.rfile = io.BytesIO(body)
            named = re.search(rb'"name": ("(?:[^"\\]|\\.)*")', body)
            name = json.loads(named[1]) if named else asked["name"][0]
            with suppress(NotFound):
                self.storage.get_file_obj(BUCKET, name)
                self.send_error(412)
                return
        super().do_POST()
