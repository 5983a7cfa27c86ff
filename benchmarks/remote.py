"""A base in a bucket: baked straight from there against downloaded first, and obstore against boto3 and s3fs.

``python benchmarks/remote.py [--mb 2000] [--rounds 2] [--rates 0,250,110]``; needs ``python tests/install.py s3``, and
for the last table ``pip install boto3 s3fs``, in an environment of its own. The server is a real one on this machine
and shares its cores. ``--rates``: MB/s that reach the client, 0: as fast as it can; 110 is a network of 1 Gbit/s. A
download is the plain one of obstore, to a file that is on the disk then; ``cold``: the bake reads it from there, as
where the memory does not hold a base. All rows of a rate and a round run one after another.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "helpers")]

import conftest  # noqa: E402, F401  (the pack under its name)
import torch  # noqa: E402
from lora_foundry.cli.terminal import table  # noqa: E402
from lora_foundry.engine.tensors import TensorInfo  # noqa: E402
from lora_foundry.loaders.disk.small import save_small  # noqa: E402
from lora_foundry.loaders.disk.writer import write_safetensors  # noqa: E402
from lora_foundry.loaders.remote.names import parse_remote  # noqa: E402
from lora_foundry.loaders.remote.uploads import upload  # noqa: E402
from s3_gateway import Gateway, find_gateway, running_gateway  # noqa: E402

WIDTH, RANK = 3072, 16
PIECE = 16 << 20
STREAM, WARM, COLD = "straight from there", "downloaded, then baked", "downloaded, then baked, cold"
# One row in a process of its own; what it imports is not counted. It tells where the time went: downloading, planning
# (header, edges, samples), the pass over the weights, and how long of that the reader waited for bytes.
BAKE = """
import json, os, resource, runpy, sys, time
runpy.run_path({conftest!r})
import obstore, torch
from obstore.store import S3Store
from lora_foundry.cli.main import main
from lora_foundry.loaders.bakes import baking
from lora_foundry.loaders.remote import ranged
torch.set_num_threads({threads})
told = dict.fromkeys(("download", "pass", "waited"), 0.0)
def timed(module, name, key):
    real = getattr(module, name)
    def call(*words, **more):
        started = time.perf_counter()
        try:
            return real(*words, **more)
        finally:
            told[key] += time.perf_counter() - started
    setattr(module, name, call)
timed(baking, "bake_all", "pass")
timed(ranged, "wait", "waited")
began, used = time.perf_counter(), time.process_time()
if {first!r}:
    store = S3Store("models", client_options={{"allow_http": True, "timeout": "600s"}})
    with open({first!r}, "wb") as file:
        for data in obstore.get(store, "base.safetensors").stream(min_chunk_size=10 << 20):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    told["download"] = time.perf_counter() - began
    if {cold}:
        with open({first!r}, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
code = main(["bake", {document!r}, "-o", {out!r}, "--fresh", "--json"])
told["seconds"], told["cpu"] = time.perf_counter() - began, time.process_time() - used
told["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print("TOLD", json.dumps(told) if code == 0 else "", file=sys.stderr)
"""
READ = {
    "obstore": """
import obstore
from obstore.store import S3Store
store = S3Store("models", client_options={"allow_http": True})
size = obstore.head(store, "base.safetensors")["size"]
read = lambda at: len(obstore.get_range(store, "base.safetensors", start=at, end=min(at + PIECE, size)))
""",
    "boto3": """
import boto3, os
client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
size = client.head_object(Bucket="models", Key="base.safetensors")["ContentLength"]
def read(at):
    span = f"bytes={at}-{min(at + PIECE, size) - 1}"
    return len(client.get_object(Bucket="models", Key="base.safetensors", Range=span)["Body"].read())
""",
    "s3fs": """
import os, s3fs
there = s3fs.S3FileSystem(client_kwargs={"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "region_name": "us-east-1"})
size = there.size("models/base.safetensors")
read = lambda at: len(there.cat_file("models/base.safetensors", start=at, end=min(at + PIECE, size)))
""",
}


def make(folder: Path, megabytes: int) -> None:
    """A base of bf16 squares, a LoRA on all of them, and documents that name the base here and there."""
    numbers = torch.Generator().manual_seed(0)
    names = [f"blocks.{i}.attn.to_q" for i in range(max(1, round(megabytes * 1e6 / (2 * WIDTH * WIDTH))))]
    square = torch.randn(WIDTH, WIDTH, generator=numbers).mul_(0.02).bfloat16()
    infos = [TensorInfo(f"{name}.weight", torch.bfloat16, (WIDTH, WIDTH)) for name in names]
    with write_safetensors(folder / "base.safetensors", infos, {}) as sink:
        for number, info in enumerate(infos):
            sink.write(info.name, square.roll(number))
    sides = {"A": (RANK, WIDTH), "B": (WIDTH, RANK)}
    shapes = {f"{name}.lora_{side}.weight": shape for name in names for side, shape in sides.items()}
    lora = {name: torch.randn(*shape, generator=numbers).mul_(0.01) for name, shape in shapes.items()}
    save_small(folder / "lora.safetensors", lora)
    for name, base in (("here", "copy/base.safetensors"), ("there", "s3://models/base.safetensors")):
        text = json.dumps({"base": base, "stack": ["lora.safetensors"], "quantize": "fp8"})
        (folder / f"{name}.json").write_text(text)


def bake(gateway: Gateway, folder: Path, kind: str, threads: int) -> dict[str, float]:
    """One row: seconds, CPU seconds of the client and of the server, peak memory in GB, bytes that the relay saw."""
    local, gateway.bytes_sent = folder / "copy" / "base.safetensors", 0
    local.parent.mkdir(exist_ok=True)
    code = BAKE.format(
        conftest=str(ROOT / "tests" / "conftest.py"),
        first="" if kind == STREAM else str(local),
        cold=kind == COLD,
        document=str(folder / ("there.json" if kind == STREAM else "here.json")),
        out=str(folder / f"{kind}.safetensors"),
        threads=threads,
    )
    with tempfile.TemporaryDirectory(dir=folder) as home:  # nothing is known of an earlier row
        environment = {**os.environ, "LORA_FOUNDRY_HOME": home}
        before = cpu_of(gateway.pid)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        )
        server = cpu_of(gateway.pid) - before
    found = [line.partition(" ")[2] for line in done.stderr.splitlines() if line.startswith("TOLD {")]
    if done.returncode or not found:
        raise SystemExit(done.stderr[-2000:] + done.stdout[-2000:])
    local.unlink(missing_ok=True)
    told: dict[str, float] = json.loads(found[0])
    told["plan"] = told["seconds"] - told["download"] - told["pass"]
    return {**told, "server_cpu": server, "bytes": gateway.bytes_sent}


def cpu_of(pid: int) -> float:
    """Processor seconds of a process until now."""
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def read(library: str) -> dict[str, float] | None:
    """The whole base by ranges of 16 MB, one by one: seconds, and CPU seconds of the client; None without it."""
    if importlib.util.find_spec(library) is None:
        return None
    measure = (
        "began, cpu = time.perf_counter(), time.process_time()\nassert sum(map(read, range(0, size, PIECE))) == size\n"
    )
    told = "print(time.perf_counter() - began, time.process_time() - cpu)"
    code = f"import time\nPIECE = {PIECE}\n{READ[library]}\n{measure}{told}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, cpu = map(float, done.stdout.split())
    return {"seconds": seconds, "cpu": cpu}


def measured(gateway: Gateway, folder: Path, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    """The three rows at a rate (MB/s; 0: past the relay), the median of the rounds, and the ratios of each round."""
    gateway.rate = rate * 1e6
    os.environ["AWS_ENDPOINT_URL"] = gateway.url if rate else gateway.direct
    rounds = [
        {kind: bake(gateway, folder, kind, options.threads) for kind in (STREAM, WARM, COLD)}
        for _ in range(options.rounds)
    ]
    rows = {kind: {key: statistics.median(each[kind][key] for each in rounds) for key in rounds[0][kind]}
            for kind in (STREAM, WARM, COLD)}  # fmt: skip
    ratios = {
        kind: statistics.median(each[STREAM]["seconds"] / each[kind]["seconds"] for each in rounds)
        for kind in (WARM, COLD)
    }
    return {"rows": rows, "ratios": ratios}


def print_rows(found: dict[str, Any], rate: float) -> None:
    """A rate as a table, and below it what perfect overlapping would come to."""
    keys = ("seconds", "download", "plan", "pass", "waited", "cpu", "server_cpu", "peak_gb")
    print(f"\n{f'{rate:g} MB/s' if rate else 'as fast as the server can'} (load {os.getloadavg()[0]:.1f})")
    print(table([(kind, *(f"{row[key]:.2f}" for key in keys)) for kind, row in found["rows"].items()], ("", *keys)))
    for kind, ratio in found["ratios"].items():
        row = found["rows"][kind]
        parts = row["download"], row["seconds"] - row["download"]
        work = (row["cpu"] + row["server_cpu"]) / (os.cpu_count() or 1)
        least = max(*parts, work) / row["seconds"]
        print(f"straight to {kind}: {ratio:.2f} (the longer of download, bake and all CPU over all cores: {least:.2f})")


def main() -> None:
    """Measure and print the tables, and all numbers as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=2000, help="size of the base")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--rates", default="0,250,110", help="MB/s of the network; 0: no limit")
    options = parser.parse_args()
    program = find_gateway()
    if program is None:
        raise SystemExit("Run: python tests/install.py s3")
    with tempfile.TemporaryDirectory() as work, running_gateway(program, Path(work) / "s3") as gateway:
        os.environ.update(gateway.environment)
        folder = Path(work)
        make(folder, options.mb)
        gateway.make_bucket("models")
        upload(folder / "base.safetensors", parse_remote("s3://models/base.safetensors"))
        size = (folder / "base.safetensors").stat().st_size
        (folder / "base.safetensors").unlink()
        os.environ["AWS_ENDPOINT_URL"] = gateway.direct
        read("obstore")  # the server fills its own cache the first time, which would be told of the first row
        for rate in map(float, options.rates.split(",")):
            found = measured(gateway, folder, rate, options)
            print_rows(found, rate)
            outs = [folder / f"{kind}.safetensors" for kind in (STREAM, WARM, COLD)]
            same = all(filecmp.cmp(outs[0], out, shallow=False) for out in outs[1:])
            read_share = found["rows"][STREAM]["bytes"] / size
            print(json.dumps({"rate": rate, "base_gb": size / 1e9, "same": same, "share_read": read_share, **found}))
        os.environ["AWS_ENDPOINT_URL"] = gateway.direct
        for library in READ:
            each = [told for _ in range(options.rounds) if (told := read(library))]
            print(json.dumps({library: each, "at": time.strftime("%H:%M")}), flush=True)


if __name__ == "__main__":
    main()
