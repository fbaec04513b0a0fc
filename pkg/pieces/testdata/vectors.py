#!/usr/bin/env python3
"""Computes vectors.txt apart from the Go code: python3 vectors.py > vectors.txt

Nothing is used but hashes and big integers: CBOR (RFC 8949, 4.2.1), CIDs, Ed25519
(RFC 8032, 5.1) and the compression of SHA-256 (FIPS 180-4, 6.2.2), which gives the
borders, are written out here. It takes a few minutes.
"""
import base64
import hashlib

# --- CBOR, deterministic -----------------------------------------------------


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if n < 1 << 8 * size:
            return bytes([major << 5 | info]) + n.to_bytes(size, "big")
    raise ValueError(n)


def cbor(v):
    if isinstance(v, int):
        return head(0, v) if v >= 0 else head(1, -1 - v)
    if isinstance(v, bytes):
        return head(2, len(v)) + v
    if isinstance(v, str):
        return head(3, len(v.encode())) + v.encode()
    return head(4, len(v)) + b"".join(map(cbor, v))


# --- CID ---------------------------------------------------------------------


def cid(codec, data):
    raw = bytes([1, codec, 0x12, 32]) + hashlib.sha256(data).digest()
    return "b" + base64.b32encode(raw).decode().lower().rstrip("=")


# --- Ed25519 -----------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def recover(y, sign):
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return P - x if x & 1 != sign else x


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2
    return ((x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P)


def times(n, point):
    result = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


BASE_Y = 4 * pow(5, -1, P) % P
BASE = (recover(BASE_Y, 0), BASE_Y)


def compress(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def keys(seed):
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return a, h[32:], compress(times(a, BASE))


def sign(seed, message):
    a, prefix, public = keys(seed)
    r = number(prefix, message) % L
    big_r = compress(times(r, BASE))
    return big_r + ((r + number(big_r, public, message) * a) % L).to_bytes(32, "little")


# --- SHA-256 -----------------------------------------------------------------


def root(n, power):
    """The first 32 bits of the fractional part of the power-th root of n."""
    low, high = 0, n << 32
    while low < high:
        mid = (low + high + 1) // 2
        low, high = (mid, high) if mid**power <= n << 32 * power else (low, mid - 1)
    return low & 0xFFFFFFFF


PRIMES = [p for p in range(2, 312) if all(p % q for q in range(2, p))]
K = [root(p, 3) for p in PRIMES]
H = [root(p, 2) for p in PRIMES[:8]]


def turn(x, n):
    return (x >> n | x << 32 - n) & 0xFFFFFFFF


def absorb(state, block):
    w = [int.from_bytes(block[i : i + 4], "big") for i in range(0, 64, 4)]
    for i in range(16, 64):
        a, b = w[i - 15], w[i - 2]
        w.append((w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10)) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for k, x in zip(K, w):
        t = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + (e & f ^ ~e & g) + k + x
        u = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (t + u) & 0xFFFFFFFF, a, b, c, (d + t) & 0xFFFFFFFF, e, f, g
    return [(x + y) & 0xFFFFFFFF for x, y in zip(state, (a, b, c, d, e, f, g, h))]


def borders(data, size):
    """The states before the first piece and behind every piece but the last."""
    state = H
    out = [state]
    for at in range(0, len(data) // size * size, 64):
        state = absorb(state, data[at : at + 64])
        if (at + 64) % size == 0:
            out.append(state)
    return [b"".join(x.to_bytes(4, "big") for x in state) for state in out]


# --- the vectors -------------------------------------------------------------

SEED = bytes(range(32))
PIECE = 4 << 20
MAKER = keys(SEED)[2]


def content(size):
    return (bytes(i * 7 % 251 for i in range(251 * 4096)) * (size // (251 * 4096) + 1))[:size]


def git(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).digest()


def statement(digest, size, index, data, around=b""):
    message = b"p2pagent statement v1\0" + bytes([len(digest)]) + digest.ljust(32, b"\0")
    message += size.to_bytes(8, "big") + index.to_bytes(8, "big") + hashlib.sha256(data).digest() + around
    return [index, hashlib.sha256(data).digest(), MAKER, sign(SEED, message), around]


def extent_key(*spans):
    h = hashlib.sha256(b"p2pagent extent v1\0")
    for digest, first, count in spans:
        h.update(digest.ljust(32, b"\0") + first.to_bytes(8, "big") + count.to_bytes(8, "big"))
    return h.digest()


def vector(name, value):
    print(name, value.hex() if isinstance(value, bytes) else value)


config = b'{"a": 1}\n'
weights = content(2 * PIECE + 5)
weights_digest = hashlib.sha256(weights).digest()
pointer = git(b"a pointer\n")
files = [
    ["config.json", [git(config), len(config)], b""],
    ["weights/model.safetensors", [weights_digest, len(weights)], pointer],
]
outline = cbor([1, "org/name", "0123456789abcdef0123456789abcdef01234567", files])
cut = [weights[i : i + PIECE] for i in range(0, len(weights), PIECE)]
states = borders(weights, PIECE)
around = [a + b for a, b in zip(states, states[1:])] + [b""]
statements = [statement(weights_digest, len(weights), i, data, around[i]) for i, data in enumerate(cut)]
proofs = [
    [[git(config), len(config)], [statement(git(config), len(config), 0, config)]],
    [[weights_digest, len(weights)], [statements[0], statements[2]]],
]
manifest = cbor([1, outline, proofs])

vector("maker", MAKER)
vector("cid-empty", cid(0x55, b""))
vector("cid-hello", cid(0x55, b"hello world"))
vector("cid-piece", cid(0x55, weights[:PIECE]))
vector("git-digest", git(b"hello world\n"))
vector("weights-digest", weights_digest)
vector("outline", outline)
vector("statements", cbor(statements))
vector("manifest", manifest)
vector("manifest-cid", cid(0x51, manifest))
vector("extent-run", extent_key((weights_digest, 0, 2)))
vector("extent-bundle", extent_key((git(config), 0, 1), (hashlib.sha256(b"x").digest(), 0, 1)))
