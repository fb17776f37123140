"""A Hugging Face Hub on 127.0.0.1, for tests: as much of its HTTP as huggingface_hub and datasets need to download.

Point `HF_ENDPOINT` at `HubServer.url` before huggingface_hub is imported. Status codes and `X-Error-Code`s are the real
Hub's: a gated repository shows its name and its list of files to all and its files to nobody without access; a
private or missing one is 401 without a token and 404 with one.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["models", "datasets", "spaces"]
Failure = Literal["hang up", "hang", "web page", "lose the answer", "be slow"] | int

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".parquet", ".gz", ".arrow")


@dataclass
class Repo:
    """A repository: commits by their id, and what branches and tags point at."""

    gated: bool = False
    private: bool = False
    tags: tuple[str, ...] = ()
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Make `files` the whole content of `ref`; returns the commit's id."""
        digest = hashlib.sha1(f"{len(self.commits)}".encode())
        for name, data in sorted(files.items()):
            digest.update(f"{name}\0{blob_id(data)}\n".encode())
        self.commits[digest.hexdigest()] = dict(files)
        self.refs[ref] = digest.hexdigest()
        return digest.hexdigest()

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's id stands for."""
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass(frozen=True)
class Request:
    """A request as it came, and the status it got (0: none)."""

    method: str
    path: str
    token: str | None
    status: int


@dataclass
class Fault:
    """Requests whose path holds `match` fail once `after` of them have passed, `times` of them or all."""

    match: str
    failure: Failure
    times: int | None
    after: int
    retry_after: int | None = None


@dataclass
class Response:
    """What a route answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_json(cls, value: Any, **headers: str) -> Response:
        return cls(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    @classmethod
    def error(cls, status: int, code: str, message: str, **headers: str) -> Response:
        body = json.dumps({"error": message}).encode()
        return cls(status, body, {"X-Error-Code": code, "X-Error-Message": message, **headers})


def blob_id(data: bytes) -> str:
    """Git's id of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class HubServer:
    """Use as a context manager; `stop` may be called early, and then connections are refused."""

    handler_class: type[Handler]

    def __init__(self, tokens: frozenset[str] = frozenset()) -> None:
        self.tokens = tokens
        self.repos: dict[tuple[Kind, str], Repo] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        hub = self

        class BoundHandler(self.handler_class):  # type: ignore[name-defined]
            server_hub = hub

        self._http = _QuietServer(("127.0.0.1", 0), BoundHandler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()

    def add(
        self,
        kind: Kind,
        name: str,
        files: Mapping[str, bytes],
        *,
        gated: bool = False,
        private: bool = False,
        tags: tuple[str, ...] = (),
    ) -> str:
        """A new repository with `files` on `main`; returns its commit."""
        repo = self.repos[kind, name] = Repo(gated, private, tags)
        return repo.commit(files)

    def fail(
        self,
        match: str,
        failure: Failure,
        *,
        times: int | None = None,
        after: int = 0,
        retry_after: int | None = None,
    ) -> None:
        """Requests whose path holds `match` get this status, or `web page`, or none: `hang up` closes, `hang` waits.

        `be slow` serves after a second, `lose the answer` serves and hangs up. The first `after` of them are served,
        and those that come after `times` failures too.
        """
        with self._lock:
            self.faults.append(Fault(match, failure, times, after, retry_after))

    def take_fault(self, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.match not in path or fault.times == 0:
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                fault.times = None if fault.times is None else fault.times - 1
                return fault
        return None

    def log(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def files_asked_for(self, kind: Kind, name: str) -> set[str]:
        """Names of the files of a repository that were asked for by HEAD or GET."""
        prefix = "" if kind == "models" else f"{kind}/"
        pattern = re.compile(f"/{prefix}{re.escape(name)}/resolve/[^/]+/([^?]+)")
        with self._lock:
            found = [pattern.match(request.path) for request in self.requests]
        return {unquote(match[1]) for match in found if match}


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may leave early
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One route a method below; a later route is a pattern in `ROUTES` and a method."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for the client's acknowledgement
    server_hub: HubServer

    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("GET", r"/api/models", "models"),
        (
            "GET",
            r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+(?:/[^/]+)?)/revision/(?P<revision>[^/]+)",
            "info",
        ),
        ("GET", r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+(?:/[^/]+)?)/auth-check", "auth_check"),
        (
            "GET",
            r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+(?:/[^/]+)?)/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?",
            "tree",
        ),
        (
            "POST",
            r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+(?:/[^/]+)?)/paths-info/(?P<revision>[^/]+)",
            "paths_info",
        ),
        ("GET", r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+(?:/[^/]+)?)", "info"),
        (
            "GET",
            r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
            "file",
        ),
    )

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server_hub.take_fault(self.path)
        failure = None if fault is None else fault.failure
        if failure == "lose the answer":
            self._route(body)
            failure = "hang up"
        if failure == "be slow":
            self.server_hub.stopping.wait(1)
        if failure in ("hang up", "hang"):
            self.server_hub.log(Request(self.command, self.path, self.token, 0))
            if failure == "hang":
                self.server_hub.stopping.wait()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if failure == "web page":
            response = Response(200, b"<html>Log in to this network</html>", {"Content-Type": "text/html"})
        elif isinstance(failure, int):
            response = Response.error(failure, "RevisionNotFound" if failure == 404 else "", "told to fail")
            if fault.retry_after is not None:
                response.headers["Retry-After"] = str(fault.retry_after)
        else:
            response = self._route(body)
        self.server_hub.log(Request(self.command, self.path, self.token, response.status))
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _route(self, body: bytes) -> Response:
        path = urlsplit(self.path).path
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if wanted == method and match:
                parts = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                return self._with_repo(name, parts, body)
        return Response.error(404, "", f"no such route: {method} {path}")

    def _with_repo(self, route: str, parts: dict[str, str], body: bytes) -> Response:
        if route == "models":
            names = [name for kind, name in self.server_hub.repos if kind == "models"]
            return Response.of_json([{"id": name, "_id": blob_id(name.encode())[:24]} for name in names])
        if route == "whoami":
            if self.token not in self.server_hub.tokens:
                return Response.error(401, "", "Invalid username or password.")
            return Response.of_json({"name": "ada", "auth": {"accessToken": {"displayName": "laptop", "role": "read"}}})
        kind: Any = parts.get("kind", "models")
        repo = self.server_hub.repos.get((kind, parts["name"]))
        allowed = self.token in self.server_hub.tokens
        if repo is None or (repo.private and not allowed):
            if self.token is None:
                return Response.error(401, "RepoNotFound", "Invalid username or password.")
            return Response.error(404, "RepoNotFound", "Repository not found")
        if repo.gated and not allowed and route in ("file", "auth_check"):
            return Response.error(
                401 if self.token is None else 403,
                "GatedRepo",
                f"Access to {parts['name']} is restricted. You must be authenticated and have access to it.",
            )
        commit = repo.resolve(parts.get("revision", "main"))
        if commit is None:
            return Response.error(404, "RevisionNotFound", f"Invalid rev id: {parts['revision']}")
        if route == "auth_check":
            return Response.of_json({})
        if route == "info":
            return Response.of_json(self._info(parts["name"], repo, commit))
        if route == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            return Response.of_json(tree(repo.commits[commit], parts.get("path", ""), recursive))
        if route == "paths_info":
            return Response.of_json(self._paths_info(repo.commits[commit], body))
        return self._file(repo.commits[commit], commit, parts["path"])

    def _info(self, name: str, repo: Repo, commit: str) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(repo.commits[commit])]
        if "blobs" in parse_qs(urlsplit(self.path).query):
            siblings = [{**file, "size": len(repo.commits[commit][file["rfilename"]])} for file in siblings]
        access = {"gated": "manual" if repo.gated else False, "private": repo.private, "disabled": False}
        return {
            "_id": blob_id(name.encode())[:24],
            "id": name,
            "sha": commit,
            "siblings": siblings,
            "tags": list(repo.tags),
        } | access

    def _paths_info(self, files: Mapping[str, bytes], body: bytes) -> list[dict[str, Any]]:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(body)["paths"]
        else:
            paths = parse_qs(body.decode()).get("paths", [])
        entries = {entry["path"]: entry for entry in tree(files, "", recursive=True)}
        return [entries[path] for path in paths if path in entries]

    def _file(self, files: Mapping[str, bytes], commit: str, path: str) -> Response:
        if path not in files:
            return Response.error(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        data = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag(path, data)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return Response(200, data, headers)
        start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        if start > end:
            return Response(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        return Response(206, data[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"})


HubServer.handler_class = Handler


def etag(path: str, data: bytes) -> str:
    """SHA-256 of a large file (LFS), git's id of a small one."""
    return hashlib.sha256(data).hexdigest() if path.endswith(LFS_SUFFIXES) else blob_id(data)


def tree(files: Mapping[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """Entries of a folder, in the form of the Hub's tree and paths-info answers."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, data in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        parents = path[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(parents) + 1 if recursive else min(len(parents), 1) + 1):
            name = prefix + "/".join(parents[:depth])
            entries[name] = {"type": "directory", "path": name, "oid": blob_id(name.encode()), "size": 0}
        if parents and not recursive:
            continue
        entries[path] = {"type": "file", "path": path, "oid": blob_id(data), "size": len(data)}
        if path.endswith(LFS_SUFFIXES):
            entries[path]["lfs"] = {"oid": etag(path, data), "size": len(data), "pointerSize": 134}
    return list(entries.values())
