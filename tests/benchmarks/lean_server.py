"""A server that answers the calls of a run and does nothing else, so that it is not what is measured.

Raw asyncio protocol: about ten times as light as the emulator. It hashes what is uploaded, because the client checks
that, keeps none of it, and counts quotas with the emulator's code. ``python -m tests.benchmarks.lean_server
[--service JSON] [--uvloop]`` prints its address and, when it is told to stop, its ``service.Report`` as JSON.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import random
import re
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec

from pipeline.emulator import api_errors
from pipeline.emulator.quota import Quotas
from tests.benchmarks.service import PROMPT_TOKENS, Report, Service

MODEL = json.dumps({"name": "models/gemini-3.8-flash", "supportedGenerationMethods": ["generateContent"]}).encode()
ANSWER = json.dumps(
    {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "A benchmark's answer. " * 8}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": {
            "promptTokenCount": PROMPT_TOKENS,
            "candidatesTokenCount": 40,
            "totalTokenCount": PROMPT_TOKENS + 40,
        },
        "modelVersion": "gemini-3.8-flash",
        "responseId": "benchmark",
    }
).encode()
REASONS = {200: "OK", 429: "Too Many Requests", 503: "Service Unavailable"}
FILE_NAME = re.compile(rb"files/f\d{11}")
KEPT_BYTES = 4096
"""Longest body that is looked into; a request that names a file is shorter."""
DAY = datetime(2026, 11, 22, tzinfo=UTC)


def reply(body: bytes, *headers: str, status: int = 200) -> bytes:
    """A whole HTTP response."""
    first = f"HTTP/1.1 {status} {REASONS[status]}"
    lines = [first, "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


UNAVAILABLE = reply(
    api_errors.error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.").content(), status=503
)


@dataclass(slots=True)
class StoredFile:
    """What is left of a file: its metadata and when it is ready."""

    name: str
    mime_type: str
    uri: str
    digest: Any = field(default_factory=hashlib.sha256)
    size_bytes: int = 0
    active_at: float = 0.0
    path_seconds: float = 0.0

    def metadata(self, now: float) -> dict[str, str]:
        """The API's File."""
        return {
            "name": self.name,
            "mimeType": self.mime_type,
            "uri": self.uri,
            "sizeBytes": str(self.size_bytes),
            "sha256Hash": base64.b64encode(self.digest.hexdigest().encode()).decode(),
            "state": "ACTIVE" if now >= self.active_at else "PROCESSING",
        }


class Server:
    """The service's state, and the report of what happened."""

    def __init__(self, service: Service) -> None:
        self.report = Report()
        self.origin = ""
        self._service = service
        self._files: dict[str, StoredFile] = {}
        self._quotas = Quotas([service.quota] if service.quota else [])
        self._chance = random.Random(1)
        self._other_at = 0.0
        self._cpu_before = 0.0

    def uploading(self, path: str) -> StoredFile:
        """The file that a chunk belongs to."""
        return self._files["files/" + path.rsplit("=", 1)[1]]

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[float, bytes]:
        """Seconds to wait, and the response."""
        report = self.report
        report.calls += 1
        if report.first_call_at is None:
            report.first_call_at = time.monotonic()
            self._cpu_before = cpu_seconds()
        if path.endswith(":generateContent"):
            return self._generate(body)
        if path.startswith("/upload/"):
            return self._upload(path, headers)
        if "/files/" in path and method == "GET":
            file = self._files["files/" + path.rsplit("/", 1)[1]]
            return 0.0, reply(json.dumps(file.metadata(time.monotonic())).encode())
        return 0.0, reply(b"{}" if method == "DELETE" else MODEL)

    def answered(self) -> None:
        """A response has been written."""
        self.report.last_answer_at = time.monotonic()

    def final_report(self) -> Report:
        """The report, when all is over."""
        report = self.report
        span = report.last_answer_at - (report.first_call_at or 0.0)
        report.busy_share = (cpu_seconds() - self._cpu_before) / span if span > 0 else 0.0
        return report

    def _upload(self, path: str, headers: dict[str, str]) -> tuple[float, bytes]:
        if headers["x-goog-upload-command"] == "start":
            name = f"files/f{len(self._files):011d}"
            mime_type = headers["x-goog-upload-header-content-type"]
            self._files[name] = StoredFile(name, mime_type, uri=f"{self.origin}/v1beta/{name}")
            url = f"{self.origin}/upload/v1beta/files?upload_id={name[6:]}"
            return 0.0, reply(b"", f"X-Goog-Upload-URL: {url}", "X-Goog-Upload-Status: active")
        if "finalize" not in headers["x-goog-upload-command"]:
            return 0.0, reply(b"", "X-Goog-Upload-Status: active")
        file = self.uploading(path)
        wait = self._service.upload_seconds
        processing = self._service.processing_seconds if file.mime_type.startswith("video/") else 0.0
        file.path_seconds = wait + processing
        file.active_at = time.monotonic() + wait + processing
        self.report.files += 1
        self.report.upload_seconds += wait
        metadata = {"file": file.metadata(file.active_at if not processing else 0.0)}
        return wait, reply(json.dumps(metadata).encode(), "X-Goog-Upload-Status: final")

    def _generate(self, body: bytes) -> tuple[float, bytes]:
        report, service = self.report, self._service
        now = time.monotonic()
        if report.first_generate_at is None:
            report.first_generate_at = now
        since = now - report.first_generate_at
        report.generate_calls += 1
        down = service.outage is not None and service.outage[0] <= since < service.outage[1]
        if down or (service.trouble_share and self._chance.random() < service.trouble_share):
            report.unavailable += 1
            return service.refusal_seconds, UNAVAILABLE
        self._others(since)
        if refusal := self._admit(since):
            report.refused += 1
            return service.refusal_seconds, reply(refusal, status=429)
        report.accepted += 1
        report.accepted_each_second += [0] * (int(since) + 1 - len(report.accepted_each_second))
        report.accepted_each_second[int(since)] += 1
        wait = service.generate.draw(self._chance)
        report.generate_seconds += wait
        named = FILE_NAME.search(body, 0, KEPT_BYTES)
        path_seconds = wait + (self._files[named[0].decode()].path_seconds if named else 0.0)
        report.longest_path_seconds = max(report.longest_path_seconds, path_seconds)
        return wait, reply(ANSWER)

    def _admit(self, since: float) -> bytes | None:
        if self._service.quota is None:
            return None
        moment = DAY + timedelta(seconds=self._service.window_phase_seconds + since)
        refusal = self._quotas.admit("benchmark", "gemini-3.8-flash", PROMPT_TOKENS, moment)
        return refusal.content() if refusal else None

    def _others(self, since: float) -> None:
        while self._service.others_rpm and self._other_at <= since:
            self._admit(self._other_at)
            self._other_at += 60.0 / self._service.others_rpm


class Connection(asyncio.Protocol):
    """One connection: requests in, whole responses out, one at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._file: StoredFile | None = None
        self._missing_bytes = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole; file contents are hashed as they come, and dropped."""
        while data:
            if self._head is None:
                self._received += data
                end = self._received.find(b"\r\n\r\n")
                if end < 0:
                    return
                self._begin(bytes(self._received[:end]).decode("latin-1"))
                data = bytes(self._received[end + 4 :])
                self._received.clear()
            taken, data = data[: self._missing_bytes], data[self._missing_bytes :]
            self._missing_bytes -= len(taken)
            self._server.report.received_bytes += len(taken)
            if self._file:
                self._file.digest.update(taken)
                self._file.size_bytes += len(taken)
            elif len(self._received) < KEPT_BYTES:
                self._received += taken
            if self._missing_bytes:
                return
            self._end()

    def _begin(self, head: str) -> None:
        request_line, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        method, path, _ = request_line.split(" ")
        self._head = method, path, headers
        self._missing_bytes = int(headers.get("content-length", "0"))
        self._file = self._server.uploading(path) if "upload_id=" in path else None

    def _end(self) -> None:
        assert self._head is not None
        wait, answer = self._server.answer(*self._head, bytes(self._received))
        self._head = self._file = None
        self._received.clear()
        if wait:
            asyncio.get_running_loop().call_later(wait, self._send, answer)
        else:
            self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(answer)
        self._server.answered()


def cpu_seconds() -> float:
    """Of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def serve(service: Service) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    server = Server(service)
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=4096)
    server.origin = "http://{}:{}".format(*listening.sockets[0].getsockname())
    print(server.origin, flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    print(msgspec.json.encode(server.final_report()).decode(), flush=True)


def main() -> None:
    """Read what to play, and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", default="{}", help="a service.Service as JSON")
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    runner: Callable[[Awaitable[None]], None] = asyncio.run  # type: ignore[assignment]
    if given.uvloop:
        import uvloop

        runner = uvloop.run  # type: ignore[assignment]
    runner(serve(msgspec.json.decode(given.service, type=Service)))


if __name__ == "__main__":
    main()
