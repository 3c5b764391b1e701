"""The calls of the Hugging Face Hub's HTTP interface that huggingface_hub makes, spoken by a server in this process.

Repositories are kept in memory, commit by commit; what is large is stored and served as LFS, from another path.
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

LARGE_BYTES = 4_096
"""Files of this size and more are LFS."""
PAGE = 3
"""Files of one answer to a listing: few, so that pages are followed."""
Files = dict[str, bytes]


def blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def tree(folder: Path) -> Files:
    """Everything below a folder, as it would stand in a repository."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def small_vit(folder: Path) -> None:
    """A random ViT as transformers saves it."""
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8,
        layer_norm_eps=1e-6,
        id2label={0: "ant", 1: "bee", 2: "cat"},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(folder)


@dataclass
class Repository:
    """Branches, and the files of each commit."""

    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Files] = field(default_factory=dict)
    private: bool = False

    def commit(self, changes: Mapping[str, bytes | None], branch: str = "main") -> str:
        """Another commit on a branch; None removes a file."""
        files = {**self.commits.get(self.refs.get(branch, ""), {}), **changes}
        kept = {path: data for path, data in files.items() if data is not None}
        before = self.refs.get(branch, "")
        content = repr((before, len(self.commits), sorted((path, blob_id(data)) for path, data in kept.items())))
        self.refs[branch] = hashlib.sha1(content.encode()).hexdigest()
        self.commits[self.refs[branch]] = kept
        return self.refs[branch]

    def files(self, branch: str = "main") -> Files:
        return self.commits[self.refs[branch]]


class Hub:
    """All repositories by (`models` or `datasets`, `owner/name`), what was asked, and what is to go wrong."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repository] = {}
        self.asked: list[str] = []
        """`GET /path` of each request."""
        self.sent_bytes = 0
        """Of files, in answers."""
        self.token = ""
        """The right one; others are refused. Without one nobody is asked."""
        self.faults: list[tuple[int, dict[str, str]]] = []
        """Status and headers for the next requests, before any of them is heard."""
        self.objects: dict[str, bytes] = {}
        self.part_bytes = 10**9
        """Larger files are taken in parts of this size."""
        self.begins = True
        """Whether a new repository has a commit."""
        self.ranges = True
        """Whether parts of files are given."""
        self.told_elsewhere = 0
        """How often a token came to where files lie, which is another host in earnest."""
        self.expired = False
        """Whether the next signed address holds no longer."""
        self.uri = ""

    def add(self, kind: str, name: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put files on a branch; the commit."""
        return self.repos.setdefault((kind, name), Repository()).commit(files, branch)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """An empty Hub; this process's settings lead to it, without a token, and with little patience."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("VITPIPE_STORAGE_DEADLINE_S", "1")
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.uri)
        yield hub


class Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit|branch)/(.+))?")
_RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_BATCH = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = 65_536  # one packet an answer: two would wait for each other

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = (
            self.rfile.read(length) if "chunked" not in self.headers.get("Transfer-Encoding", "") else self._chunks()
        )
        url = urlsplit(self.path)
        self.where, self.query = url.path, parse_qs(url.query)
        self.hub.asked.append(f"{self.command} {self.path}")
        try:
            if self.hub.faults:
                status, headers = self.hub.faults.pop(0)
                return self._send(status, b"", headers)
            if not self.where.startswith("/cdn/"):
                self._check_token()
            self._route()
        except Refusal as refused:
            said = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            content = json.dumps({"error": refused.message}).encode()
            self._send(refused.status, content, {name: text for name, text in said.items() if text})

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _check_token(self) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.hub.token and given and given != self.hub.token:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        self.known = bool(given)

    def _route(self) -> None:
        if self.where == "/api/repos/create":
            return self._create()
        if self.where == "/api/validate-yaml":
            return self._json({"warnings": [], "errors": []})
        if self.where.startswith("/cdn/"):
            self.hub.told_elsewhere += "Authorization" in self.headers
            if self.hub.expired:
                self.hub.expired = False
                raise Refusal(403, "", "Request has expired")
            return self._file(self.hub.objects[self.where.removeprefix("/cdn/")])
        if self.where.startswith("/lfs/"):
            return self._store(self.where.removeprefix("/lfs/"))
        if match := _BATCH.fullmatch(self.where):
            return self._batch(self._repository(match[1] or "models", match[2]))
        if match := _RESOLVE.fullmatch(self.where):
            return self._resolve(self._repository(match[1] or "models", match[2]), unquote(match[3]), unquote(match[4]))
        if match := _API.fullmatch(self.where):
            repository = self._repository(match[1], match[2])
            return getattr(self, f"_{match[3] or 'revision'}")(repository, match[4] or "main", match)
        raise Refusal(404, "", f"this server knows no {self.where}")

    def _repository(self, kind: str, name: str) -> Repository:
        found = self.hub.repos.get((kind, name))
        if found is None or (found.private and not self.known):
            raise Refusal(404 if self.known or not self.hub.token else 401, "RepoNotFound", "Repository not found")
        return found

    def _at(self, repository: Repository, revision: str) -> tuple[str, Files]:
        commit = repository.refs.get(unquote(revision), unquote(revision))
        if commit not in repository.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    def _revision(self, repository: Repository, revision: str, match: re.Match[str]) -> None:
        commit, _ = self._at(repository, revision)
        self._json({"_id": "1", "id": match[2], "sha": commit, "private": repository.private, "tags": []})

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
        if len(data) >= LARGE_BYTES:
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 128}
        return entry

    def _tree(self, repository: Repository, rest: str, match: re.Match[str]) -> None:
        revision, _, folder = rest.partition("/")
        _, files = self._at(repository, revision)
        inside = f"{unquote(folder)}/" if folder else ""
        below = [path for path in sorted(files) if path.startswith(inside)]
        if inside and not below:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist")
        deep = self.query.get("recursive", ["false"])[0].lower() == "true"
        paths = [path for path in below if deep or "/" not in path.removeprefix(inside)]
        start = int(self.query.get("cursor", ["0"])[0])
        listed = [self._entry(path, files[path]) for path in paths[start : start + PAGE]]
        folders = {path.rpartition("/")[0] for path in below if "/" in path} if start == 0 else ()
        listed += [{"type": "directory", "path": one, "oid": "0" * 40} for one in sorted(folders)]
        more = f"{self.hub.uri}{self.where}?recursive={deep}&cursor={start + PAGE}"
        self._json(listed, {"Link": f'<{more}>; rel="next"'} if start + PAGE < len(paths) else {})

    def _resolve(self, repository: Repository, revision: str, path: str) -> None:
        commit, files = self._at(repository, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        data, head = files[path], {"X-Repo-Commit": commit}
        if len(data) < LARGE_BYTES:
            return self._file(data, {**head, "ETag": f'"{blob_id(data)}"'})
        sha256 = hashlib.sha256(data).hexdigest()
        self.hub.objects.setdefault(sha256, data)
        linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        self._send(302, b"", {**head, **linked, "Location": f"{self.hub.uri}/cdn/{sha256}"})

    def _file(self, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not self.hub.ranges:
            self.hub.sent_bytes += len(data)
            return self._send(200, data, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        if start >= len(data):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        self.hub.sent_bytes += end + 1 - start
        span = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
        self._send(206, data[start : end + 1], {**(headers or {}), **span})

    def _write_allowed(self) -> None:
        if not self.known:
            raise Refusal(401, "", "Invalid username or password.")

    def _create(self) -> None:
        self._write_allowed()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        key = f"{asked.get('type') or 'model'}s", name
        if key in self.hub.repos:
            raise Refusal(409, "", "You already created this repo")
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repos[key] = Repository(private=private)
        if self.hub.begins:
            self.hub.repos[key].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.hub.uri}/{'' if key[0] == 'models' else 'datasets/'}{name}", "name": name})

    def _branch(self, repository: Repository, branch: str, match: re.Match[str]) -> None:
        self._write_allowed()
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        repository.refs[unquote(branch)] = self._at(repository, start)[0]
        self._json({})

    def _preupload(self, repository: Repository, revision: str, match: re.Match[str]) -> None:
        self._write_allowed()
        asked = json.loads(self.body)["files"]
        modes = {one["path"]: "lfs" if one["size"] >= LARGE_BYTES else "regular" for one in asked}
        self._json(
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}
        )

    def _batch(self, repository: Repository) -> None:
        self._write_allowed()
        objects = json.loads(self.body)["objects"]
        self._json({"transfer": "basic", "objects": [one | self._wanted(one["oid"], one["size"]) for one in objects]})

    def _wanted(self, oid: str, size: int) -> dict[str, Any]:
        """Where an object goes: whole, or in parts where it is large; nowhere where it is there."""
        if oid in self.hub.objects:
            return {}
        upload: dict[str, Any] = {"href": f"{self.hub.uri}/lfs/{oid}"}
        if size > self.hub.part_bytes:
            parts = range(-(-size // self.hub.part_bytes))
            addresses = {f"{part + 1:05d}": f"{self.hub.uri}/lfs/{oid}/{part}" for part in parts}
            upload["header"] = {"chunk_size": str(self.hub.part_bytes), **addresses}
        return {"actions": {"upload": upload, "verify": {"href": f"{self.hub.uri}/lfs/verify"}}}

    def _store(self, place: str) -> None:
        oid, _, part = place.partition("/")
        if oid == "verify":
            asked = json.loads(self.body)
            if len(self.hub.objects[asked["oid"]]) != asked["size"]:
                raise Refusal(422, "", "another size")
            return self._json({})
        if part:
            self.hub.objects[place] = self.body
            return self._send(200, b"", {"ETag": f'"{part}"'})
        if self.command == "POST":  # all parts are there
            numbers = [one["partNumber"] - 1 for one in json.loads(self.body)["parts"]]
            self.body = b"".join(self.hub.objects.pop(f"{oid}/{number}") for number in numbers)
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(422, "", "another digest")
        self.hub.objects[oid] = self.body
        self._json({})

    def _commit(self, repository: Repository, revision: str, match: re.Match[str]) -> None:
        self._write_allowed()
        branch, changes = unquote(revision), dict[str, bytes | None]()
        for line in self.body.splitlines():
            one = json.loads(line)
            fields = one["value"]
            if one["key"] == "header" and fields.get("parentCommit") not in (None, repository.refs.get(branch)):
                raise Refusal(412, "", "A commit has happened since. Please refresh and try again.")
            if one["key"] == "file":
                changes[fields["path"]] = base64.b64decode(fields["content"])
            elif one["key"] == "lfsFile":
                changes[fields["path"]] = self.hub.objects[fields["oid"]]
            elif one["key"] == "deletedFile":
                changes[fields["path"]] = None
        commit = repository.commit(changes, branch)
        self._json({"success": True, "commitOid": commit, "commitUrl": f"{self.hub.uri}/{match[2]}/commit/{commit}"})
