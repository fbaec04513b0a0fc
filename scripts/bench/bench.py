#!/usr/bin/env python3
"""bench.py - measures p2pagent against its targets in a lab of namespaces: see rows.py for what, run for how to start it.

    bench.py [ROW ...]          rows to measure; all when none is given
    bench.py --list             their names
    bench.py --table FILE       the Markdown table of lines measured before, nothing is run

Each row adds a line of JSON to .cache/bench/results.jsonl. Exit status 1 when a target was missed."""
import argparse
import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time

import rows
from rows import MB, fleet

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
CACHE = f"{ROOT}/.cache"
BIN = f"{CACHE}/bin"
OUT = f"{CACHE}/bench"
LAB = f"{ROOT}/scripts/lab/lab.py"


# ---------------------------------------------------------------- inside a lab

def inner(row, variant, result, size):
    """Plays one variant of a row in the lab around us and writes its figures."""
    top = folder(row, size)
    model, sums = (None, None) if variant in row.generated else (f"{top}/model", f"{top}/SHA256SUMS")
    data = f"{OUT}/data" if row.disk else rows.fleet.lab.DATA
    f = fleet.Fleet(BIN, model, sums, f"{OUT}/logs/{row.name}{'-' + variant if variant else ''}", data)
    if variant in row.generated:
        f.source = ["-generate", f"{fleet.REPO}={row.generated[variant]}"]
    try:
        figures = row.play(f, variant, row.caps)
    except fleet.Failed as e:
        figures = {"error": str(e)}
    finally:
        stubborn = f.close()
    if stubborn and "error" not in figures and not variant.startswith("aria2"):
        figures["stubborn"] = stubborn                       # did not end within 10 s of SIGTERM
    with open(result, "w") as out:
        json.dump(figures, out)


# ---------------------------------------------------------------- outside

def folder(row, size):
    """Where the row's model is."""
    return f"{CACHE}/models/{size}-{row.shards}{''.join(row.kind)}"


def model(row, size):
    """Makes (once) the model of `size` MiB that the Hub serves from disk."""
    top = folder(row, size)
    if not os.path.exists(f"{top}/SHA256SUMS"):
        shutil.rmtree(top, ignore_errors=True)
        subprocess.run([f"{BIN}/mkmodel", "-size", f"{size}MiB", "-shards", str(row.shards), *row.kind, "-sums", f"{top}.sums", f"{top}/model"], check=True)
        os.replace(f"{top}.sums", f"{top}/SHA256SUMS")


def roomy(row):
    """The row's model size: halved until it fits into memory on every node at once."""
    free = int(next(l for l in open("/proc/meminfo") if l.startswith("MemAvailable")).split()[1]) // 1024
    size = row.size
    while not row.disk and (row.nodes + 1) * size + 2048 > free and size > 64:
        size //= 2
    return size


def play(row, variant, size):
    """Runs a variant in a fresh lab; a dict with "error" when it failed."""
    result = f"{OUT}/result.{os.getpid()}"
    data = f"{OUT}/data"
    shutil.rmtree(data, ignore_errors=True)
    topology = [x for k, v in row.caps.items() for x in ("--" + k.replace("_", "-"), v)]
    argv = [sys.executable, LAB, "--nodes", str(row.nodes), *topology, "--", sys.executable, __file__, "--inner", result, "--variant", variant, "--size", str(size), row.name]
    lab = subprocess.Popen(argv, start_new_session=True)     # Ctrl-C is ours to pass on, once
    try:
        lab.wait(timeout=row.timeout + 1200 * bool(row.disk) + 300)
        with open(result) as f:
            return json.load(f)
    except subprocess.TimeoutExpired:
        return {"error": "the lab did not end in time"}
    except (OSError, ValueError):
        return {"error": f"the lab ended with {lab.returncode}"}
    finally:
        end(lab)
        shutil.rmtree(data, ignore_errors=True)
        if os.path.exists(result):
            os.remove(result)


def end(process):
    """The lab's namespaces go with its first process, so this leaves nothing behind."""
    for send in (process.terminate, process.kill):
        if process.poll() is None:
            send()
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                pass


def measure(row):
    size = roomy(row)
    if any(v not in row.generated for v in row.variants):
        model(row, size)
    figures = {}
    for variant in row.variants:
        print(f"   {row.name} {variant}".rstrip(), "...", flush=True)
        figures[variant] = play(row, variant, size)
    errors = [f"{v}: {r['error']}".removeprefix(": ") for v, r in figures.items() if "error" in r]
    metrics = [rows.Metric(row.what, "ends well", "; ".join(errors), False)] if errors else row.judge(figures)
    return {"row": row.name, "at": time.strftime("%F %T"), "commit": commit(), "machine": machine(),
            "metrics": [vars(m) for m in metrics], "figures": figures}


def commit():
    p = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return p.stdout.strip() or "unknown"


def machine():
    total = int(next(open("/proc/meminfo")).split()[1]) // MB
    return f"{os.cpu_count()} cores, {total} GiB, Linux {platform.release().split('-')[0]}"


def table(results):
    """Markdown of the newest result of every row."""
    newest = {r["row"]: r for r in results}
    out = ["| what | target | measured | | again |", "|---|---|---|---|---|"]
    for name in rows.ROWS:
        for m in newest.get(name, {"metrics": []})["metrics"]:
            out.append(f"| {m['what']} | {m['target']} | {m['value']} | {'ok' if m['ok'] else '**missed**'} | `scripts/bench/run {name}` |")
    last = max(newest.values(), key=lambda r: r["at"], default=None)
    return "\n".join(out + ([f"\nMeasured on {last['machine']}, {last['at'][:10]}, at {last['commit']}."] if last else []))


def read(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("rows", nargs="*", metavar="ROW")
    p.add_argument("--list", action="store_true")
    p.add_argument("--table", metavar="FILE")
    for hidden in ("--inner", "--variant"):
        p.add_argument(hidden, default="", help=argparse.SUPPRESS)
    p.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    o = p.parse_args()
    if unknown := [r for r in o.rows if r not in rows.ROWS]:
        p.error(f"no row {', '.join(unknown)}; there are {', '.join(rows.ROWS)}")
    return o


def main():
    o = options()
    if o.inner:
        return inner(rows.ROWS[o.rows[0]], o.variant, o.inner, o.size)
    if o.list:
        return print("\n".join(f"{r.name:<10} {r.what}" for r in rows.ROWS.values()))
    if o.table:
        return print(table(read(o.table)))
    os.makedirs(OUT, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with open(f"{OUT}/lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("bench.py: another bench is running in this folder")
        return campaign(o.rows or list(rows.ROWS))


def campaign(names):
    results = []
    for name in names:
        results.append(measure(rows.ROWS[name]))
        with open(f"{OUT}/results.jsonl", "a") as f:
            f.write(json.dumps(results[-1]) + "\n")
        for m in results[-1]["metrics"]:
            print(f"{'ok     ' if m['ok'] else 'MISSED '} {m['what']}: {m['value']} (target {m['target']})", flush=True)
    verdicts = [m["ok"] for r in results for m in r["metrics"]]
    print(f"\n{table(results)}\n\n{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
