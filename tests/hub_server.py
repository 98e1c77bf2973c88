"""A small double of the Hugging Face hub on loopback: repositories with commits, spoken to by huggingface_hub itself.

It takes every file inline; uploads of large files to object storage are not part of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Tree = dict[str, bytes]


class HubServer:
    """One repository, `org/models`, with a main branch.

    Attributes:
        url: the endpoint.
        commits: commit -> its files, in the order in which they were made.
        before_commit: called when a commit has come in, before its parent is looked at.
        ignored: names that the repository's .gitignore leaves out.
    """

    def __init__(self) -> None:
        self.commits: dict[str, Tree] = {"0" * 40: {".gitattributes": b""}}
        self.before_commit: Callable[[], None] = lambda: None
        self.ignored: set[str] = set()
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = urllib.parse.unquote(self.path.partition("?")[0])
                status, headers, data = server._answer(self.command, path, body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_HEAD = do_POST = _serve

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, changes: Tree) -> str:
        """A commit by somebody else."""
        files = {**self.commits[self.head], **changes}
        oid = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid] = files
        return oid

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            if parts[2:4] != ["org", "models"]:
                return _error(404, "RepoNotFound")
            action = parts[4] if len(parts) > 4 else "revision"
            oid = self._resolve("/".join(parts[5:]) or "main")
            if oid is None:
                return _error(404, "RevisionNotFound")
            return self._api(action, oid, body)
        if parts[:3] == ["org", "models", "resolve"]:
            oid = self._resolve(parts[3])
            name = "/".join(parts[4:])
            if oid is None or name not in self.commits[oid]:
                return _error(404, "EntryNotFound")
            data = self.commits[oid][name]
            headers = {"X-Repo-Commit": oid, "ETag": f'"{_blob(data)}"', "Accept-Ranges": "bytes"}
            return 200, headers, data
        return _error(404, "RepoNotFound")

    def _resolve(self, revision: str) -> str | None:
        if revision == "main":
            return self.head
        return revision if revision in self.commits else None

    def _api(self, action: str, oid: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        files = self.commits[oid]
        if action == "revision":
            return _json({"id": "org/models", "sha": oid, "siblings": []})
        if action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return _json(
                {
                    "files": [
                        {
                            "path": name,
                            "uploadMode": "regular",
                            "shouldIgnore": name in self.ignored,
                            "oid": _blob(files[name]) if name in files else None,
                        }
                        for name in names
                    ]
                }
            )
        if action == "paths-info":
            asked = urllib.parse.parse_qs(body.decode()).get("paths", [])
            if body.startswith(b"{"):
                asked = json.loads(body)["paths"]
            found = [name for name in asked if name in files]
            return _json([{"type": "file", "path": n, "size": len(files[n]), "oid": _blob(files[n])} for n in found])
        assert action == "commit", action
        lines = [json.loads(line) for line in body.splitlines()]
        self.before_commit()
        with self.lock:
            if lines[0]["value"].get("parentCommit") not in (None, self.head):
                return _error(412, "PreconditionFailed")
            assert all(line["key"] == "file" for line in lines[1:])
            changes = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines[1:]}
            oid = self.commit(changes)
        return _json({"commitUrl": f"{self.url}/org/models/commit/{oid}", "commitOid": oid})


def _blob(data: bytes) -> str:
    """git's hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _json(value: object) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def _error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"X-Error-Code": code, "Content-Type": "application/json"}, b'{"error": "no"}'
