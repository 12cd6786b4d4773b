"""A small Hub on loopback: enough of its interface to publish a model and to load it again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

MODEL = r"/api/models/(?P<repo>[^/]+/[^/]+)"
ROUTES = {
    "create": r"POST /api/repos/create",
    "validate": r"POST /api/validate-yaml",
    "refs": rf"GET {MODEL}/refs",
    "make_branch": rf"POST {MODEL}/branch/(?P<revision>[^/]+)",
    "remove_branch": rf"DELETE {MODEL}/branch/(?P<revision>[^/]+)",
    "preupload": rf"POST {MODEL}/preupload/(?P<revision>[^/]+)",
    "commit": rf"POST {MODEL}/commit/(?P<revision>[^/]+)",
    "tree": rf"GET {MODEL}/tree/(?P<revision>[^/]+)(/(?P<path>.+))?",
    "info": rf"GET {MODEL}(/revision/(?P<revision>[^/]+))?",
    "file": r"(GET|HEAD) /(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
}


@dataclass
class Repo:
    """Branches point to commits; a commit is all its files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        oid = secrets.token_hex(20)
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


class Hub(ThreadingHTTPServer):
    """Used in a `with` statement. `faults` maps a name of ROUTES to what goes wrong there: "refuse" or "drop"."""

    token = "hf_loopback"
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.faults: dict[str, str] = {}
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Hub:
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *args) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def respond(self) -> None:
        call = f"{self.command} {urlsplit(self.path).path}"
        length = int(self.headers.get("Content-Length", 0))
        name, match = next(((n, m) for n, route in ROUTES.items() if (m := re.fullmatch(route, call))), (None, None))
        self.server.calls[name or call] += 1
        fault = self.server.faults.get(name)
        if fault == "drop":
            self.rfile.read(length // 2)
            self.close_connection = True
            return
        self.body = self.rfile.read(length)
        if match is None:
            self.fail(404, "this Hub does not know the call")
        elif self.command in ("POST", "DELETE") and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.fail(401, "Invalid username or password.")
        elif fault == "refuse":
            self.fail(403, "you must use a write token")
        elif name in ("create", "validate"):
            getattr(self, name)()
        else:
            self.of_repo(name, **{key: value and unquote(value) for key, value in match.groupdict().items()})

    do_GET = do_HEAD = do_POST = do_DELETE = respond  # noqa: N815

    def of_repo(self, name: str, repo: str, revision: str | None = "main", **arguments: str | None) -> None:
        if repo not in self.server.repos:
            return self.fail(404, "Repository not found", "RepoNotFound")
        self.repo, self.name, self.revision = self.server.repos[repo], repo, revision or "main"
        if name not in ("make_branch", "remove_branch", "refs"):
            self.oid = self.repo.branches.get(self.revision, self.revision)
            if self.oid not in self.repo.commits:
                return self.fail(404, f"Invalid rev id: {self.revision}", "RevisionNotFound")
        getattr(self, name)(**arguments)

    def create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.server.repos
        if not there:
            repo = self.server.repos[name] = Repo(private=asked.get("visibility") == "private")
            repo.commit("main", {".gitattributes": b""})
        self.answer({"url": f"{self.server.url}/{name}"}, 409 if there else 200)

    def validate(self) -> None:
        self.answer({})

    def refs(self) -> None:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": oid} for name, oid in self.repo.branches.items()
        ]
        self.answer({"branches": branches, "converts": [], "tags": []})

    def make_branch(self) -> None:
        self.repo.branches[self.revision] = self.repo.branches["main"]
        self.answer({})

    def remove_branch(self) -> None:
        del self.repo.branches[self.revision]
        self.answer({})

    def preupload(self) -> None:
        files = json.loads(self.body)["files"]
        self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})

    def commit(self) -> None:
        files = dict(self.repo.commits[self.oid])
        for entry in map(json.loads, self.body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                del files[entry["value"]["path"]]
        oid = self.repo.commit(self.revision, files)
        self.answer({"commitUrl": f"{self.server.url}/{self.name}/commit/{oid}", "commitOid": oid})

    def info(self) -> None:
        files = [{"rfilename": name} for name in self.repo.commits[self.oid]]
        self.answer({"id": self.name, "sha": self.oid, "private": self.repo.private, "siblings": files})

    def tree(self, path: str | None) -> None:
        files = {n: c for n, c in self.repo.commits[self.oid].items() if path is None or n.startswith(f"{path}/")}
        if not files:
            return self.fail(404, f"{path} does not exist", "EntryNotFound")
        self.answer([{"type": "file", "path": n, "size": len(c), "oid": _etag(c)} for n, c in files.items()])

    def file(self, path: str) -> None:
        content = self.repo.commits[self.oid].get(path)
        if content is None:
            return self.fail(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": self.oid})
        self.send(200, content, {"X-Repo-Commit": self.oid, "ETag": f'"{_etag(content)}"'})

    def answer(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def fail(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.answer({"error": message}, status, named)

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        """Quiet."""


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
