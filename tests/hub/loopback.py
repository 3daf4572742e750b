"""A Hub on the loopback: the few calls of `huggingface_hub` that fetch and push a model, with commits kept in
memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_loopback"


class Hub(ThreadingHTTPServer):
    """`repos`: name -> commit -> path -> bytes; commits in order, the last is `main`. `seen`: every
    request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.stored: dict[str, bytes] = {}
        self.seen: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle_one(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if self.command in ("GET", "HEAD"):
            return self.read(path)
        if self.command == "PUT":
            self.server.stored[path.rpartition("/")[2]] = body
            return self.answer(200)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "/objects/" not in path:
            return self.answer(401, {"error": "Invalid credentials"})
        self.write(path, body)

    do_GET = do_HEAD = do_PUT = do_POST = handle_one

    def read(self, path: str) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            repo, kind, revision = found.groups()
            commits = self.server.repos.get(repo)
            if commits is None:
                return self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            sha = list(commits)[-1] if revision == "main" else revision
            if sha not in commits:
                return self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            files = commits[sha]
            if kind == "tree":
                rows = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files.items()
                ]
                return self.answer(200, rows)
            return self.answer(
                200, {"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]}
            )
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, sha, name = found.groups()
            data = self.server.repos[repo][sha][name]
            tag = hashlib.sha256(data).hexdigest()
            return self.answer(200, data, ETag=f'"{tag}"', X_Repo_Commit=sha)
        self.answer(404, {"error": f"no {path}"})

    def write(self, path: str, body: bytes) -> None:
        hub = self.server
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in hub.repos:
                return self.answer(409, {"error": "exists", "url": f"{hub.url}/{repo}"})
            hub.repos[repo] = {}
            hub.private[repo] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self.answer(200, {"url": f"{hub.url}/{repo}", "name": repo})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**row, "actions": {"upload": {"href": f"{hub.url}/store/{row['oid']}", "header": {}}}}
                for row in json.loads(body)["objects"]
            ]
            return self.answer(
                200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json"
            )
        repo = "/".join(path.split("/")[3:5])
        if "/preupload/" in path:
            rows = [
                {
                    "path": row["path"],
                    "uploadMode": "lfs" if row["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for row in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": rows})
        if "/commit/" in path:
            commits = hub.repos[repo]
            files = dict(commits[list(commits)[-1]]) if commits else {}
            for line in body.splitlines():
                row = json.loads(line)
                if row["key"] == "file":
                    files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
                if row["key"] == "lfsFile":
                    files[row["value"]["path"]] = hub.stored[row["value"]["oid"]]
            sha = hashlib.sha1(body).hexdigest()
            commits[sha] = files
            return self.answer(200, {"commitOid": sha, "commitUrl": f"{hub.url}/{repo}/commit/{sha}"})
        self.answer(404, {"error": f"no {path}"})
