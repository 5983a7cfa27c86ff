"""A base in a bucket: baked straight from there against downloaded first, and obstore against boto3 and s3fs.

``python benchmarks/remote.py [--mb 2000] [--rounds 2]``; needs ``python tests/install.py s3``, and for the second table
``pip install boto3 s3fs``, in an environment of its own. The server is a real one on this machine and shares its
cores: compare the ratios.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "helpers")]

import conftest  # noqa: E402, F401  (the pack under its name)
import torch  # noqa: E402
from lora_foundry.engine.tensors import TensorInfo  # noqa: E402
from lora_foundry.loaders.disk.small import save_small  # noqa: E402
from lora_foundry.loaders.disk.writer import write_safetensors  # noqa: E402
from lora_foundry.loaders.remote.names import parse_remote  # noqa: E402
from lora_foundry.loaders.remote.uploads import upload  # noqa: E402
from s3_gateway import Gateway, find_gateway, running_gateway  # noqa: E402

WIDTH, RANK = 3072, 16
PIECE = 16 << 20
BAKE = """
import os, resource, runpy, sys, time
runpy.run_path({conftest!r})
import obstore, torch
from concurrent.futures import ThreadPoolExecutor
from obstore.store import S3Store
from lora_foundry.cli.main import main
torch.set_num_threads({threads})
began = time.perf_counter()
if {first!r}:
    store = S3Store("models", client_options={{"allow_http": True}})
    size = obstore.head(store, "base.safetensors")["size"]
    with open({first!r}, "wb") as file, ThreadPoolExecutor(4) as pool:
        read = lambda at: obstore.get_range(store, "base.safetensors", start=at, end=min(at + {piece}, size))
        for data in pool.map(read, range(0, size, {piece})):
            file.write(data)
code = main(["bake", {document!r}, "-o", {out!r}, "--fresh", "--json"])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print("TOLD", code, time.perf_counter() - began, peak, file=sys.stderr)
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


def bake(gateway: Gateway, folder: Path, first: bool, threads: int) -> dict[str, float]:
    """One bake in a process of its own: seconds, peak memory in GB, bytes that came from the server."""
    local, gateway.bytes_sent = folder / "copy" / "base.safetensors", 0
    local.parent.mkdir(exist_ok=True)
    document = folder / ("here.json" if first else "there.json")
    conftest_py, out = str(ROOT / "tests" / "conftest.py"), str(folder / f"out{first}.safetensors")
    code = BAKE.format(
        conftest=conftest_py,
        first=str(local) if first else "",
        piece=PIECE,
        document=str(document),
        out=out,
        threads=threads,
    )
    environment = {**os.environ, "LORA_FOUNDRY_HOME": str(folder / "home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    told = [line.split() for line in done.stderr.splitlines() if line.startswith("TOLD")]
    if done.returncode or not told or told[0][1] != "0":
        raise SystemExit(done.stderr[-2000:] + done.stdout[-2000:])
    local.unlink(missing_ok=True)
    return {"seconds": float(told[0][2]), "peak_gb": float(told[0][3]), "bytes": gateway.bytes_sent}


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


def main() -> None:
    """Measure and print both tables as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=2000, help="size of the base")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
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
        rounds = [
            {first: bake(gateway, folder, first, options.threads) for first in (False, True)}
            for _ in range(options.rounds)
        ]
        same = (folder / "outTrue.safetensors").read_bytes() == (folder / "outFalse.safetensors").read_bytes()
        ratio = statistics.median(each[False]["seconds"] / each[True]["seconds"] for each in rounds)
        print(json.dumps({"base_gb": size / 1e9, "same_bytes": same, "rounds": rounds, "ratio": ratio}))
        print(json.dumps({"bytes_of_base": max(each[False]["bytes"] for each in rounds) / size}))
        for library in READ:
            found = [told for _ in range(options.rounds) if (told := read(library))]
            print(json.dumps({library: found, "at": time.strftime("%H:%M")}))


if __name__ == "__main__":
    main()
