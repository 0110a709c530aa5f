"""A stand-in of the Hugging Face hub: what of its HTTP API huggingface_hub uses for models, over repositories in memory.

    with Hub() as hub:                     # hub.url is for HF_ENDPOINT, hub.token for HF_TOKEN
        ...
    hub.repos["me/x"].files                # name -> content of the newest commit

Files of 10 kB and more, and safetensors, go through Git LFS, as on the hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS_BYTES = 10_000


@dataclass
class Repo:
    """A repository: its newest files, and its commits as (id, message)."""

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, str]] = field(default_factory=lambda: [("0" * 40, "initial commit")])

    @property
    def sha(self) -> str:
        return self.commits[-1][0]


class Hub(ThreadingHTTPServer):
    """The server. `token` is the one that may write; `requests` are (method, path, authorization) of every request."""

    def __init__(self, token: str = "hf_SecretOfTheTest") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token, self.url = token, f"http://127.0.0.1:{self.server_address[1]}"
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_POST(self) -> None:
        body = self._begin()
        path = unquote(urlsplit(self.path).path)
        if not self._may_write():
            return self._answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            if name.startswith("others/"):
                return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
            there = name in self.server.repos
            self.server.repos.setdefault(name, Repo(bool(given.get("private") or given.get("visibility") == "private")))
            return self._answer(409 if there else 200, {"url": f"{self.server.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [
                {"path": one["path"], "uploadMode": "lfs" if _is_lfs(one["path"], one["size"]) else "regular",
                 "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return self._answer(200, {"files": files})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            upload = lambda oid: {"upload": {"href": f"{self.server.url}/lfs/{oid}"}}  # noqa: E731
            objects = [one | {"actions": upload(one["oid"])} for one in json.loads(body)["objects"]]
            return self._answer(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines() if line.strip()])
        return self._answer(404, {"error": f"the stand-in has no {path}"})

    def do_PUT(self) -> None:
        body, oid = self._begin(), self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self._answer(200, {})

    def do_GET(self) -> None:
        self._begin()
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo = self._repo(match[1], match[3])
            if repo is None:
                return
            if match[2] == "tree":
                return self._answer(200, [_entry(name, content) for name, content in repo.files.items()])
            siblings = [{"rfilename": name} for name in repo.files]
            return self._answer(200, {"id": match[1], "sha": repo.sha, "private": repo.private, "siblings": siblings})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self._repo(match[1], match[2])
            if repo is None:
                return
            if match[3] not in repo.files:
                return self._answer(
                    404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.sha}
                )
            content = repo.files[match[3]]
            etag = _entry("", content)["oid"]
            return self._answer(
                200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": repo.sha, "Accept-Ranges": "bytes"}
            )
        return self._answer(404, {"error": f"the stand-in has no {path}"})

    do_HEAD = do_GET

    def _begin(self) -> bytes:
        """Note the request, and return its body."""
        self.server.requests.append((self.command, self.path, self.headers.get("Authorization")))
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.server.token}"

    def _repo(self, name: str, revision: str | None) -> Repo | None:
        """Return a repository that may be read; answer where there is none."""
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not self._may_write()):
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if revision not in (None, "main", repo.sha):
            self._answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo

    def _commit(self, name: str, lines: list[dict]) -> None:
        repo, message = self.server.repos[name], ""
        files = dict(repo.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        repo.files = files
        sha = hashlib.sha1(repr((repo.sha, sorted(files.items()))).encode()).hexdigest()
        repo.commits.append((sha, message))
        self._answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{sha}", "commitOid": sha})

    def _answer(self, status: int, content, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(content, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _is_lfs(path: str, size: int) -> bool:
    return path.endswith(".safetensors") or size >= LFS_BYTES


def _entry(name: str, content: bytes) -> dict:
    """What a listing says of a file; the oid is that of git."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
