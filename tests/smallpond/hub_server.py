"""The part of a Hugging Face Hub on loopback that is needed to read files of a data set."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPO = "owner/set"
_COMMIT = "0" * 40


@contextmanager
def hub_server(files: dict[str, bytes]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Serves the files of one data set, which may change meanwhile.

    Yields:
        The storage options to reach it, and a list that gets the method and path of each request.
    """
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, files, seen))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield {"endpoint": f"http://127.0.0.1:{server.server_port}", "token": False}, seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, files: dict[str, bytes], seen: list[str], *args: Any) -> None:
        self._files = files
        self._seen = seen
        super().__init__(*args)

    def _is_about(self, route: str) -> str | None:
        """What follows a route of the data set, if the request is for it."""
        path = unquote(urlsplit(self.path).path)
        return path.removeprefix(route).lstrip("/") if f"{path}/".startswith(route) else None

    def do_GET(self) -> None:
        self._seen.append(f"{self.command} {self.path}")
        if self._is_about(f"/api/datasets/{REPO}") in ("", "revision/main"):
            self._json({"id": REPO, "sha": _COMMIT, "siblings": []})
        elif (folder := self._is_about(f"/api/datasets/{REPO}/tree/main")) is not None:
            deep = parse_qs(urlsplit(self.path).query).get("recursive") == ["true"]
            self._json(self._below(folder, deep=deep))
        elif (name := self._is_about(f"/datasets/{REPO}/resolve/main/")) in self._files:
            self._content(self._files[name])
        else:
            self._missing()

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self._seen.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self._is_about(f"/api/datasets/{REPO}/paths-info/main") is None:
            self._missing()
            return
        everything = {entry["path"]: entry for entry in self._below("", deep=True)}
        known = [everything[path] for path in parse_qs(body)["paths"] if path in everything]
        commit = {"id": _COMMIT, "title": "more", "date": "2026-01-01T00:00:00.000Z"}
        self._json([{**entry, "lastCommit": commit} for entry in known])

    def _below(self, folder: str, *, deep: bool) -> list[dict[str, Any]]:
        entries: dict[str, dict[str, Any]] = {}
        inside = f"{folder}/" if folder else ""
        for name, content in self._files.items():
            if not name.startswith(inside):
                continue
            parts = name.removeprefix(inside).split("/")
            for i in range(1, len(parts)):
                path = inside + "/".join(parts[:i])
                entries[path] = {"type": "directory", "path": path, "oid": "1" * 40, "size": 0}
            oid = sha1(content, usedforsecurity=False).hexdigest()
            entries[name] = {"type": "file", "path": name, "oid": oid, "size": len(content)}
        level = inside.count("/")
        return [e for path, e in entries.items() if deep or path.count("/") == level]

    def _content(self, content: bytes) -> None:
        begin, end = 0, len(content)
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last) + 1 if last else end
        piece = content[begin:end]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(piece)))
        self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.send_header("ETag", f'"{sha1(content, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", _COMMIT)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(piece)

    def _json(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _missing(self) -> None:
        known = f"{REPO}/" in f"{self.path}/"
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
