"""An in-memory Hub on localhost, with the part of the API that pushing and loading models needs."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN, USER = "hf_good", "me"
LARGE = (".safetensors", ".png")


class Hub:
    """A server that runs inside `with Hub() as hub:` at `hub.url`.

    Attributes:
        repositories: Maps an id to `{"private": bool, "branches": {name: {path: bytes}}, "commits": [summary, ...]}`.
        failing: Called with method and path of each request; returns an error status to answer with, or `None`.
        token: Token for writing and for reading private repositories.
    """

    def __init__(self):
        self.repositories: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.failing: Callable[[str, str], int | None] = lambda method, path: None
        self.token = TOKEN

    def __enter__(self) -> "Hub":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.server.shutdown()
        self.server.server_close()

    def files(self, repo: str, branch: str = "main") -> dict[str, bytes]:
        return self.repositories[repo]["branches"][branch]


def commit_of(files: dict[str, bytes]) -> str:
    digest = hashlib.sha1()
    for path, content in sorted(files.items()):
        digest.update(path.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def object_id(path: str, content: bytes) -> str:
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def answer(self, status: int, content=None, headers=(), head: bool = False) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def error(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        self.answer(status, {"error": message}, headers, head=self.command == "HEAD")

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        status = self.hub.failing(self.command, path)
        if status is not None:
            return self.error(status, "this Hub fails for testing")
        for method, pattern, act in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method.split():
                return act(self, body, **found.groupdict())
        return self.error(404, f"{self.command} {path} is not served")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def may(self, write: bool, repo: str | None = None) -> bool:
        private = repo is not None and self.hub.repositories.get(repo, {}).get("private")
        if (write or private) and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.error(401, "Invalid username or password.")
            return False
        if repo is not None and repo not in self.hub.repositories:
            self.error(404, "Repository not found", "RepoNotFound")
            return False
        return True

    def branch(self, repo: str, revision: str) -> dict[str, bytes] | None:
        branches = self.hub.repositories[repo]["branches"]
        for name, files in branches.items():
            if revision in (name, commit_of(files)):
                return files
        self.error(404, "Revision not found", "RevisionNotFound")
        return None

    # ---- endpoints ----

    def whoami(self, body) -> None:
        if self.may(write=True):
            self.answer(200, {"name": USER, "type": "user", "orgs": []})

    def create(self, body) -> None:
        if not self.may(write=True):
            return
        asked = json.loads(body)
        repo = f"{asked.get('organization') or USER}/{asked['name']}"
        exists = repo in self.hub.repositories
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        new = {"private": private, "branches": {"main": {}}, "commits": []}
        self.hub.repositories.setdefault(repo, new)
        self.answer(409 if exists else 200, {"url": f"{self.hub.url}/{repo}"})

    def auth_check(self, body, repo) -> None:
        if self.may(write=True, repo=repo):
            self.answer(200, {})

    def create_branch(self, body, repo, revision) -> None:
        if self.may(write=True, repo=repo):
            branches = self.hub.repositories[repo]["branches"]
            exists = revision in branches
            branches.setdefault(revision, dict(branches["main"]))
            self.answer(409 if exists else 200, {})

    def validate(self, body) -> None:
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, body, repo, revision) -> None:
        if not self.may(write=True, repo=repo):
            return
        held = self.branch(repo, revision)
        if held is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": object_id(file["path"], held[file["path"]]) if file["path"] in held else None,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def lfs_batch(self, body, repo) -> None:
        if self.may(write=True, repo=repo):
            objects = [
                {**file, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{file['oid']}"}}}
                for file in json.loads(body)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/json"})

    def lfs_upload(self, body, oid) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.error(400, "content and id differ")
        self.hub.blobs[oid] = body
        self.answer(200, {})

    def commit(self, body, repo, revision) -> None:
        if not self.may(write=True, repo=repo):
            return
        files = self.branch(repo, revision)
        if files is None:
            return
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.hub.repositories[repo]["commits"].append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                return self.error(400, f"{entry['key']} is not served")
        oid = commit_of(files)
        self.answer(200, {"commitOid": oid, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}"})

    def info(self, body, repo, revision="main") -> None:
        if not self.may(write=False, repo=repo):
            return
        files = self.branch(repo, revision)
        if files is not None:
            siblings = [{"rfilename": path} for path in sorted(files)]
            private = self.hub.repositories[repo]["private"]
            held = {"id": repo, "modelId": repo, "sha": commit_of(files), "private": private, "tags": []}
            self.answer(200, {**held, "siblings": siblings})

    def tree(self, body, repo, revision, folder="") -> None:
        if not self.may(write=False, repo=repo):
            return
        files = self.branch(repo, revision)
        if files is None:
            return
        prefix = f"{folder.strip('/')}/" if folder else ""
        found = [
            {"type": "file", "path": path, "size": len(content), "oid": object_id(path, content)}
            for path, content in sorted(files.items())
            if path.startswith(prefix)
        ]
        if folder and not found:
            return self.error(404, "Entry not found", "EntryNotFound")
        self.answer(200, found)

    def resolve(self, body, repo, revision, file) -> None:
        if not self.may(write=False, repo=repo):
            return
        files = self.branch(repo, revision)
        if files is None:
            return
        headers = {"X-Repo-Commit": commit_of(files)}
        if file not in files:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.answer(404, {}, headers, head=self.command == "HEAD")
        headers["ETag"] = f'"{object_id(file, files[file])}"'
        self.answer(200, files[file], headers, head=self.command == "HEAD")


REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = (
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{REPO}/branch/(?P<revision>.+)", _Handler.create_branch),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", _Handler.lfs_upload),
    ("GET", rf"/api/models/{REPO}/auth-check/write", _Handler.auth_check),
    ("GET", rf"/api/models/{REPO}", _Handler.info),
    ("GET", rf"/api/models/{REPO}/revision/(?P<revision>.+)", _Handler.info),
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)(?P<folder>/.+)?", _Handler.tree),
    ("GET HEAD", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
)
