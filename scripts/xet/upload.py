"""Makes files of several kinds, uploads them with the official client, and says as JSON what they are.

upload.py URL TOKEN DIR: the files are written below DIR."""
import json
import pathlib
import random
import sys
import time

import hf_xet

MIB = 1 << 20


def weights(r, n):
    """Bytes that compress once they are grouped, as bfloat16 does."""
    b = bytearray(r.randbytes(n))
    for i in range(1, n, 2):
        b[i] = 0x3C | b[i] & 1
    return bytes(b)


def contents():
    r = random.Random(1)
    noise = r.randbytes(70 * MIB + 17)  # more than a xorb
    yield "noise.bin", noise
    yield "weights.bin", weights(r, 8 * MIB + 1)
    yield "text.json", "".join('{"i": %d, "w": "word%d"}\n' % (i, i % 977) for i in range(300_000)).encode()
    # Shares chunks with the first, to and fro, and has one chunk many times.
    yield "mixed.bin", noise[: 3 * MIB] + r.randbytes(MIB) + bytes(4 * MIB) + noise[5 * MIB : 9 * MIB] + noise[MIB : 2 * MIB] + bytes(MIB)
    yield "small.txt", b"small"


def main(url, token, folder):
    paths = []
    for name, content in contents():
        path = pathlib.Path(folder, name)
        path.write_bytes(content)
        paths.append(str(path))
    access = (token, int(time.time()) + 3600)
    # Two sessions, so that the second finds chunks that the first has uploaded.
    done = []
    for batch in (paths[:3], paths[3:]):
        done += hf_xet.upload_files(batch, url, access, lambda: access, lambda *_: None, "model")
    json.dump([{"path": p, "xet": i.hash, "size": i.file_size} for p, i in zip(paths, done)], sys.stdout)


main(*sys.argv[1:])
