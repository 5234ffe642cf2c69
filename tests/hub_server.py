"""A stand-in for the Hugging Face hub, on loopback: `with Hub(datasets) as hub:`, and HF_ENDPOINT=hub.address.

It serves what a program asks of the hub to list and fetch a dataset at a commit: the tree, in pages; the newest commit;
files, large ones through a redirect to another path, with hashes in the headers, and in ranges. It can be told to fail:
`hub.answers` gives other answers for a path, `hub.breaks` how many transfers stop half-way, `hub.damages` how many come
with wrong bytes. `hub.asked` is what was asked for.
"""

import hashlib
import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"  # the revision that params.yaml pins
PAGE = 3  # files of one page of the tree
Answer = tuple[int, dict[str, str]]  # status, headers

GATED: Answer = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this dataset is restricted."})
UNKNOWN: Answer = (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})


class Hub:
    """datasets: name → path → content; each at COMMIT, and nowhere else."""

    def __init__(self, datasets: dict[str, dict[str, bytes]]) -> None:
        self.datasets = datasets
        self.answers: dict[str, Answer] = {}  # part of a path → what is answered instead
        self.asked: list[str] = []
        self.breaks = self.damages = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": self}))
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self.store = f"http://localhost:{self._server.server_port}/cdn"  # another host, as the hub's own store is

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def files_asked(self) -> list[str]:
        """The files of datasets that were sent, each as often as it was."""
        return [line.rpartition("/")[2] for line in self.asked if line.startswith("GET /cdn/")]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        for part, (status, headers) in self.hub.answers.items():
            if part in self.path:
                return self.send(status, b"", headers)
        routes: dict[str, Callable[..., None]] = {
            r"/api/datasets/(.+)/tree/([^/]+)": self.tree,
            r"/api/datasets/(.+?)(?:/revision/([^/]+))?": self.newest,
            r"/datasets/(.+)/resolve/([^/]+)/(.+)": self.file,
            r"/cdn/([^/]+)/[^/]+": self.content,
        }
        for pattern, route in routes.items():
            if match := re.fullmatch(pattern, unquote(urlsplit(self.path).path)):
                return route(*match.groups())
        return self.send(404)

    def known(self, name: str, revision: str | None) -> bool:
        if name not in self.hub.datasets:
            self.send(*_bare(UNKNOWN))
        elif revision not in (None, "main", COMMIT):
            self.send(404, headers={"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            return True
        return False

    def tree(self, name: str, revision: str) -> None:
        if not self.known(name, revision):
            return
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        entries = [_entry(path, data) for path, data in sorted(self.hub.datasets[name].items())]
        more = f"{self.hub.address}/api/datasets/{name}/tree/{revision}?recursive=true&cursor={start + PAGE}"
        headers = {"Link": f'<{more}>; rel="next"'} if start + PAGE < len(entries) else {}
        self.send(200, json.dumps(entries[start : start + PAGE]).encode(), headers)

    def newest(self, name: str, revision: str | None) -> None:
        if self.known(name, revision):
            self.send(200, json.dumps({"id": name, "sha": COMMIT, "tags": [], "siblings": []}).encode())

    def file(self, name: str, revision: str, path: str) -> None:
        if not self.known(name, revision):
            return None
        data = self.hub.datasets[name].get(path)
        if data is None:
            return self.send(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        entry = _entry(path, data)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            return self.send(200, data, headers)
        headers |= {"X-Linked-ETag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(len(data))}
        return self.send(302, b"", headers | {"Location": f"{self.hub.store}/{entry['lfs']['oid']}/{Path(path).name}"})

    def content(self, digest: str) -> None:
        stored = (data for dataset in self.hub.datasets.values() for data in dataset.values())
        data = next(data for data in stored if hashlib.sha256(data).hexdigest() == digest)
        status, headers = 200, {}
        if (wanted := self.headers.get("Range")) and self.command == "GET":
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            status, data = 206, data[start:]
        if self.command == "GET" and self.hub.damages:
            self.hub.damages -= 1
            data = bytes(len(data))
        self.send(status, data, headers)

    def send(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET" and self.hub.breaks and len(data) > 1000:
            self.hub.breaks -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif self.command == "GET":
            self.wfile.write(data)


def _bare(answer: Answer) -> tuple[int, bytes, dict[str, str]]:
    return answer[0], b"", answer[1]


def _entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as the tree lists it; text files lie in git itself, all others in LFS."""
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "oid": oid, "size": len(data), "path": path}
    if not path.endswith((".md", ".jsonl", ".py")):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry
