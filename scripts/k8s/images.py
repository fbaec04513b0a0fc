"""Container images of the test cluster's own, as docker archives: images.py pause OUT PROGRAM | app OUT SITE.

pause holds a pod's namespaces. app stands for a program of the user's: this machine's python3 with the packages of the folder SITE.
"""
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import tarfile


CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def archive(out, name, layer, **config):
    """Writes the image; layer is an uncompressed tar."""
    diff = hashlib.sha256(layer).hexdigest()
    image = json.dumps({"architecture": "amd64", "os": "linux", "config": config,
                        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(out, "w") as t:
        for file, content in (("config.json", image), ("layer.tar", layer), ("manifest.json", manifest)):
            info = tarfile.TarInfo(file)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))


def libraries(files):
    """What the dynamic linker loads for files, by the paths at which it looks."""
    out = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"(/\S+\.so\S*) \(0x", out))


def app(out, site):
    stdlib = pathlib.Path(sysconfig.get_paths()["stdlib"])
    site = pathlib.Path(site)
    python = os.path.realpath(sys.executable)
    binaries = [python, *map(str, stdlib.glob("lib-dynload/*.so")), *map(str, site.rglob("*.so*"))]
    unwanted = re.compile(r"/(__pycache__|test|tests|idlelib|tkinter|dist-packages|site-packages|config-[^/]*)(/|$)")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as t:
        keep = lambda info: None if unwanted.search("/" + info.name) else info
        t.add(python, "usr/bin/python3")
        t.add(stdlib, str(stdlib).lstrip("/"), filter=keep)
        for library in sorted(libraries(binaries)):
            t.add(library, library.lstrip("/"))
        for package in sorted(site.iterdir()):
            t.add(package, f"app/{package.name}", filter=lambda info: None if "__pycache__" in info.name else info)
        t.add(CERTIFICATES, CERTIFICATES.lstrip("/"))  # without any, hf_xet does not start, though it meets nothing but HTTP here
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        t.addfile(tmp)
    archive(out, "docker.io/library/app:1", buffer.getvalue(),
            Env=["PATH=/usr/bin", f"PYTHONHOME={sys.base_prefix}", "PYTHONPATH=/app", "PYTHONDONTWRITEBYTECODE=1"])


def pause(out, program):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as t:
        t.add(program, "pause")
    archive(out, "localhost/pause:dev", buffer.getvalue(), Entrypoint=["/pause"])


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pause", "app"):
        sys.exit(__doc__)
    globals()[sys.argv[1]](*sys.argv[2:])
