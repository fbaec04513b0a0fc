"""tree.py - listings of a Hub cache, and how two of them differ."""
import json
import os
import stat


def listing(top):
    """{relative path: (kind, mode, content)}: link targets, and the bytes of what is text: refs, trees, .no_exist."""
    out = {}
    for folder, dirs, files in os.walk(top):
        for name in dirs + files:
            full = f"{folder}/{name}"
            out[os.path.relpath(full, top)] = entry(full, os.path.relpath(full, top))
    return out


def entry(full, path):
    info = os.lstat(full)
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISLNK(info.st_mode):
        return "link", None, os.readlink(full)
    if stat.S_ISDIR(info.st_mode):
        return "dir", mode, None
    if "/blobs/" in path:                                   # digests are checked elsewhere
        return "file", mode, info.st_size
    with open(full, "rb") as f:
        return "file", mode, f.read()


def documented(path, real, ours):
    """Differences that are meant (docs/operations, "The cache")."""
    parts = path.split("/")
    if parts[0] == ".locks":                                # the client's own; p2pagent takes none
        return ours is None
    if parts[0] == "CACHEDIR.TAG":
        return ours is None
    if len(parts) > 1 and parts[1] == ".no_exist":          # the client's memory of files that are not there
        return ours is None
    if len(parts) == 3 and parts[1] == "trees" and real and ours:
        # readable to every user, and without xet_hash, which would send the client past an agent
        return ours[:2] == ("file", 0o644) and (same := without_xet(real[2])) is not None and same == ours[2]
    return False


def without_xet(text):
    """The client's trees file less every xet_hash, in the client's own form; None when it is not one."""
    try:
        doc = json.loads(text)
    except ValueError:
        return None
    for f in doc["files"].values():
        f.pop("xet_hash", None)
    return json.dumps(doc, indent=1).encode()


def differences(real, ours):
    """One line for every undocumented difference."""
    out = []
    for path in sorted(real.keys() | ours.keys()):
        a, b = real.get(path), ours.get(path)
        if a != b and not documented(path, a, b):
            out.append(f"{path}: client {show(a)}, p2pagent {show(b)}")
    return out


def show(e):
    return "nothing" if e is None else f"{e[0]} {'' if e[1] is None else oct(e[1])} {'' if e[2] is None else repr(e[2])[:120]}"
