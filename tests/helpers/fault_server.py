"""A server of files on loopback that does what servers do wrong: S3 and Hub answers, ranges, uploads; no signatures.

``server.files["/bucket/key"] = bytes`` is there; ``server.fault`` is asked before each answer and may give another one.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Asked:
    """One request: method, path without query, query, the range it asks for (end not included), its headers."""

    method: str
    path: str
    query: dict[str, list[str]]
    span: tuple[int, int] | None
    headers: dict[str, str]
    number: int


@dataclass
class Reply:
    """What a fault answers. ``cut``: bytes after which the body breaks off; ``slow``: seconds for each 64 KB."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    slow: float = 0.0


Fault = Callable[["FaultServer", Asked], "Reply | None"]


class FaultServer:
    """What is on the server, what was asked, how many bytes of bodies it sent, and how it behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.sent = 0
        self.fault: Fault = lambda server, asked: None
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.aborted: list[str] = []
        self.lock = threading.Lock()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def gets(self) -> list[Asked]:
        """The requests for contents."""
        return [each for each in self.asked if each.method == "GET"]

    def plain(self, asked: Asked) -> Reply:
        """The honest answer."""
        if asked.method in ("PUT", "POST", "DELETE"):
            return Reply(405)
        if "list-type" in asked.query:
            return self.listing(asked)
        data = self.files.get(asked.path)
        if data is None:
            return error(404, "NoSuchKey")
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        if asked.headers.get("if-match", etag) != etag:
            return error(412, "PreconditionFailed")
        headers = {"ETag": etag, "Last-Modified": "Mon, 30 Nov 2026 12:00:00 GMT", "Accept-Ranges": "bytes"}
        if asked.span is None:
            return Reply(200, data, headers)
        begin, end = asked.span[0], min(asked.span[1], len(data))
        if begin >= len(data):
            return error(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
        return Reply(206, data[begin:end], headers)

    def listing(self, asked: Asked) -> Reply:
        """What lies under a prefix and not in a folder below it."""
        bucket, prefix = asked.path.rstrip("/") + "/", asked.query.get("prefix", [""])[0]
        names = [path.removeprefix(bucket) for path in sorted(self.files) if path.startswith(bucket + prefix)]
        rows = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-11-30T12:00:00.000Z</LastModified>"
            f"<ETag>&quot;listed&quot;</ETag><Size>{len(self.files[bucket + name])}</Size></Contents>"
            for name in names
            if "/" not in name.removeprefix(prefix)
        )
        return Reply(200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode())

    def upload(self, asked: Asked, body: bytes) -> Reply:
        """A PUT of a whole object, or a step of a multipart upload."""
        query, path = asked.query, asked.path
        if asked.method == "PUT" and "partNumber" not in query:
            self.files[path] = body
            return Reply(200, b"", {"ETag": '"put"'})
        if asked.method == "POST" and "uploads" in query:
            name = f"upload{len(self.uploads)}"
            self.uploads[name] = {}
            text = f"<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>{name}</UploadId>"
            return Reply(200, f"{text}</InitiateMultipartUploadResult>".encode())
        name = query["uploadId"][0]
        if asked.method == "PUT":
            self.uploads[name][int(query["partNumber"][0])] = body
            return Reply(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        parts = self.uploads.pop(name)
        if asked.method == "DELETE":
            self.aborted.append(name)
            return Reply(204)
        self.files[path] = b"".join(parts[number] for number in sorted(parts))
        etag = f"&quot;{hashlib.md5(self.files[path]).hexdigest()}&quot;"
        text = f"<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag>{etag}</ETag>"
        return Reply(200, f"{text}</CompleteMultipartUploadResult>".encode())


def error(status: int, code: str, **more: str) -> Reply:
    """A refusal as S3 writes it."""
    told = "".join(f"<{key}>{text}</{key}>" for key, text in more.items())
    return Reply(status, f"<Error><Code>{code}</Code><Message>no</Message>{told}</Error>".encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultServer

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        wanted = (int(span[1]), int(span[2]) + 1 if span[2] else 1 << 60) if span else None
        headers = {key.lower(): text for key, text in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        with self.owner.lock:
            asked = Asked(self.command, unquote(parts.path), query, wanted, headers, len(self.owner.asked))
            self.owner.asked.append(asked)
        body = self.rfile.read(int(headers.get("content-length", 0)))
        reply = self.owner.fault(self.owner, asked)
        if reply is None:
            changes = self.command in ("PUT", "POST", "DELETE")
            reply = self.owner.upload(asked, body) if changes else self.owner.plain(asked)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for key, text in reply.headers.items():
            self.send_header(key, text)
        if "Content-Length" not in reply.headers and reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        body = b"" if self.command == "HEAD" else reply.body
        if reply.cut is not None:
            body, self.close_connection = body[: reply.cut], True
        step = 1 << 16 if reply.slow else max(1, len(body))
        for begin in range(0, len(body), step):
            time.sleep(reply.slow)
            with self.owner.lock:
                self.owner.sent += len(body[begin : begin + step])
            try:
                self.wfile.write(body[begin : begin + step])
            except OSError:
                return

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer


@contextmanager
def fault_server() -> Iterator[FaultServer]:
    """A running server for the length of a block."""
    server = FaultServer()
    handler = type("Handler", (_Handler,), {"owner": server})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.daemon_threads = True
    server.port = running.server_address[1]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        running.shutdown()
        running.server_close()
