"""Writes golden.txt: the cache that huggingface_hub makes of a small repository.

    python3 -m venv V && V/bin/pip install huggingface_hub==2.4.0 && V/bin/python golden.py > golden.txt

It serves the repository on loopback, downloads it with snapshot_download for a
branch, a tag and a pull request, and lists what is in the cache then:

    d MODE PATH
    f MODE SIZE SHA256 PATH
    l TARGET PATH
"""

import hashlib
import http.server
import json
import os
import sys
import tempfile
import threading
import urllib.parse

COMMIT = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00"
REVISIONS = {"main": COMMIT, "v1.0": COMMIT, "refs/pr/1": COMMIT}


def content(seed, size):
    return bytes((i * 7 + seed) & 0xFF for i in range(size))


FILES = {
    # path: (content, LFS?)
    ".gitattributes": (b"*.bin filter=lfs\n", False),
    "config.json": (b'{"a": 1}\n', False),
    "empty.txt": (b"", False),
    "model.safetensors": (content(1, 5_000_000), True),
    "same-as-config.json": (b'{"a": 1}\n', False),
    "sub/dir/deep/w.bin": (content(2, 100), True),
    'sub/n\u00e4me "quoted" \U0001d11e.txt': (b"odd name\n", False),
}


def git_oid(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def row(path):
    data, lfs = FILES[path]
    if not lfs:
        return {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
    sha = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha}\nsize {len(data)}\n".encode()
    return {
        "type": "file",
        "path": path,
        "size": len(data),
        "oid": git_oid(pointer),
        "lfs": {"oid": sha, "size": len(data), "pointerSize": len(pointer)},
    }


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, body, headers=(), status=200):
        self.send_response(status)
        for k, v in headers:
            self.send_header(k, v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if path.startswith("/api/models/org/name/tree/"):
            self.answer(json.dumps([row(p) for p in FILES]).encode(), [("Content-Type", "application/json")])
        elif path.startswith("/api/models/org/name"):
            info = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": p} for p in FILES]}
            self.answer(json.dumps(info).encode(), [("Content-Type", "application/json")])
        elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
            name = path.split(COMMIT + "/", 1)[1]
            data, lfs = FILES[name]
            r = row(name)
            etag = r["lfs"]["oid"] if lfs else r["oid"]
            headers = [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT), ("Accept-Ranges", "bytes")]
            if lfs:
                headers += [("X-Linked-Etag", f'"{etag}"'), ("X-Linked-Size", str(len(data)))]
            self.answer(data, headers)
        else:
            self.answer(b"", [("X-Error-Code", "RepoNotFound")], 404)

    do_HEAD = do_GET


def dump(root):
    for folder, dirs, files in os.walk(root):
        dirs.sort()
        if folder != root:
            print("d", oct(os.lstat(folder).st_mode & 0o7777)[2:], os.path.relpath(folder, root))
        for name in sorted(files):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                print("l", os.readlink(path), os.path.relpath(path, root))
                continue
            with open(path, "rb") as f:
                data = f.read()
            mode = oct(os.lstat(path).st_mode & 0o7777)[2:]
            print("f", mode, len(data), hashlib.sha256(data).hexdigest(), os.path.relpath(path, root))


def main():
    os.umask(0o022)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as home:
        os.environ["HF_HOME"] = home
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
        os.environ["HF_HUB_DISABLE_XET"] = "1"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        import huggingface_hub

        for revision in REVISIONS:
            huggingface_hub.snapshot_download("org/name", revision=revision)
        print("# huggingface_hub", huggingface_hub.__version__)
        sys.stdout.flush()
        dump(os.path.join(home, "hub"))


main()
