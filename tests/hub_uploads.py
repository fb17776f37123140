"""A loopback Hub that also takes uploads: as much of the protocol as huggingface_hub needs for a commit.

Large files go by LFS: to a store of their own first, and into a commit by their checksum. A commit is all or nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from hub_server import LFS_SUFFIXES, Handler, HubServer, Repo, Response, etag


class UploadHandler(Handler):
    """Uploads for whoever shows one of the server's tokens; what it does not know, the Hub for downloads answers."""

    server_hub: UploadServer

    UPLOADS = (
        ("GET", r"/api/whoami-v2", "_whoami"),
        ("POST", r"/api/repos/create", "_create"),
        ("POST", r"/api/validate-yaml", "_validate_card"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/main", "_preupload"),
        ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "_store"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})/(?P<part>\d+)", "_store_part"),
        ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/complete", "_complete"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/commit/main", "_commit"),
        ("POST", r"/api/models/(?P<name>[^/]+/[^/]+)/super-squash/main", "_squash"),
    )

    def _route(self, body: bytes) -> Response:
        path = urlsplit(self.path).path
        for method, pattern, name in self.UPLOADS:
            match = re.fullmatch(pattern, path)
            if match is None or method != self.command:
                continue
            # The store's addresses are signed instead.
            if not path.startswith("/lfs/") and self.token not in self.server_hub.tokens:
                return Response.error(401, "", "Invalid credentials in Authorization header")
            parts = {key: unquote(value) for key, value in match.groupdict().items()}
            if "name" in parts and ("models", parts["name"]) not in self.server_hub.repos:
                return Response.error(404, "RepoNotFound", "Repository not found")
            answer: Callable[..., Response] = getattr(self, name)
            return answer(body, **parts)
        return super()._route(body)

    def _whoami(self, body: bytes) -> Response:
        return Response.of_json({"name": "owner", "auth": {"accessToken": {"role": self.server_hub.role}}})

    def _create(self, body: bytes) -> Response:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        url = {"url": f"{self.server_hub.url}/{name}"}
        if ("models", name) in self.server_hub.repos:
            return Response(409, json.dumps(url).encode(), {"Content-Type": "application/json"})
        self.server_hub.add("models", name, {".gitattributes": b""}, private=private)
        return Response.of_json(url)

    def _validate_card(self, body: bytes) -> Response:
        """What the Hub asks of a card's metadata, as far as tests need it: YAML, and a model-index with its parts."""
        import yaml

        header = json.loads(body)["content"].split("---\n")[1]
        errors = []
        try:
            for model in yaml.safe_load(header).get("model-index", []):
                for result in model["results"]:
                    parts = (result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"])
                    metrics = [metric["type"] for metric in result["metrics"]]
                    if not all(isinstance(part, str) for part in (model["name"], *parts, *metrics)):
                        errors.append({"message": "a name or a type is no text"})
        except (yaml.YAMLError, KeyError, TypeError) as error:
            errors.append({"message": str(error)})
        answer = {"errors": errors, "warnings": []}
        return Response(400 if errors else 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _repo(self, name: str) -> Repo:
        return self.server_hub.repos["models", name]

    def _preupload(self, body: bytes, name: str) -> Response:
        head = self.server_hub.head(name)
        files = []
        for file in json.loads(body)["files"]:
            path, mode = file["path"], "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            found = {"oid": etag(path, head[path])} if path in head else {}
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **found})
        return Response.of_json({"files": files})

    def _batch(self, body: bytes, name: str) -> Response:
        objects: list[dict[str, Any]] = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server_hub.store:
                href = f"{self.server_hub.url}/lfs/{wanted['oid']}?signature={self.server_hub.SIGNATURE}"
                answer["actions"] = {"upload": {"href": href}}
                size = self.server_hub.part_bytes
                if size is not None and wanted["size"] > size:
                    answer["actions"] = {"upload": self._parts(wanted["oid"], wanted["size"], size)}
            objects.append(answer)
        return Response.of_json({"objects": objects, "transfer": "basic"})

    def _store(self, body: bytes, oid: str) -> Response:
        if hashlib.sha256(body).hexdigest() != oid:
            return Response.error(400, "", "what came is not what was announced")
        self.server_hub.store[oid] = body
        return Response()

    def _parts(self, oid: str, bytes_in_all: int, size: int) -> dict[str, Any]:
        address = f"{self.server_hub.url}/lfs/{oid}"
        parts = {
            str(number + 1): f"{address}/{number + 1}?signature={self.server_hub.SIGNATURE}"
            for number in range(math.ceil(bytes_in_all / size))
        }
        return {"href": f"{address}/complete", "header": {"chunk_size": str(size), **parts}}

    def _store_part(self, body: bytes, oid: str, part: str) -> Response:
        self.server_hub.parts[oid, int(part)] = body
        return Response(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def _complete(self, body: bytes, oid: str) -> Response:
        numbers = [part["partNumber"] for part in json.loads(body)["parts"]]
        return self._store(b"".join(self.server_hub.parts[oid, number] for number in numbers), oid)

    def _commit(self, body: bytes, name: str) -> Response:
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(self.server_hub.head(name))
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, self._repo(name).refs["main"]):
                return Response.error(412, "", "A commit has happened since. Please refresh and try again.")
            if line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "deletedFolder":
                files = {path: data for path, data in files.items() if not path.startswith(value["path"])}
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server_hub.store[value["oid"]]
        commit = self._repo(name).commit(files)
        self.server_hub.heads.append(files)
        return Response.of_json({"commitUrl": f"{self.server_hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def _squash(self, body: bytes, name: str) -> Response:
        repo = self._repo(name)
        files = self.server_hub.head(name)
        repo.commits.clear()
        repo.commit(files)
        self.server_hub.store = {etag(path, data): data for path, data in files.items()}
        return Response.of_json({})


def ask_this_hub(monkeypatch: pytest.MonkeyPatch, hub: HubServer, home: Path, token: str | None = None) -> None:
    """Have huggingface_hub, in this process, ask `hub` and keep what it fetches in `home`."""
    from huggingface_hub import close_session, constants, hf_api

    # Made of the endpoint when the module is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN", raising=False)
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    close_session()


class UploadServer(HubServer):
    """`heads` are the files of every commit that was made here, `store` the large files by their checksum.

    Files of more than `part_bytes`, if it is set, come in parts of that size.
    """

    handler_class = UploadHandler
    SIGNATURE = "signed-by-the-store"

    def __init__(self, tokens: frozenset[str] = frozenset()) -> None:
        super().__init__(tokens)
        self.role = "write"
        self.store: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.part_bytes: int | None = None
        self.heads: list[dict[str, bytes]] = []

    def asked(self, part: str, status: int = 200) -> int:
        """How many requests whose path holds `part` got `status`."""
        return sum(part in request.path and request.status == status for request in list(self.requests))

    def head(self, name: str) -> dict[str, bytes]:
        """The files that a reader of the repository sees now."""
        repo = self.repos["models", name]
        return repo.commits[repo.refs["main"]]

    def steps(self, name: str) -> list[int]:
        """The steps whose checkpoints the repository holds."""
        if ("models", name) not in self.repos:
            return []
        folders = {
            PurePosixPath(path).parts[1] for path in self.head(name) if path.startswith("checkpoints/checkpoint-")
        }
        return sorted(int(folder.removeprefix("checkpoint-")) for folder in folders)


def written(hub: UploadServer) -> list[str]:
    """Requests that change something."""
    return [request.path for request in hub.requests if request.method in ("PUT", "POST")
            and "paths-info" not in request.path]  # fmt: skip
