"""A server that answers the calls of a run and does nothing else, so that it is not what is measured.

Raw asyncio protocol: about ten times as light as the emulator. It hashes what is uploaded, because the client checks
that, and can wait before it answers. ``python -m tests.benchmarks.lean_server`` prints its address and, when it is
told to stop, the CPU seconds it used.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import random
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import cast

MODEL = json.dumps({"name": "models/gemini-3.8-flash", "supportedGenerationMethods": ["generateContent"]}).encode()
ANSWER = json.dumps(
    {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "A benchmark's answer. " * 8}]}, "finishReason": "STOP"}
        ],
        "usageMetadata": {"promptTokenCount": 1125, "candidatesTokenCount": 40, "totalTokenCount": 1165},
        "modelVersion": "gemini-3.8-flash",
        "responseId": "benchmark",
    }
).encode()


class Latencies:
    """Seconds that each kind of call waits before its answer."""

    def __init__(self, upload: float, generate_median: float, generate_sigma: float, processing: float) -> None:
        self.upload = upload
        self.processing = processing
        self._median = generate_median
        self._sigma = generate_sigma
        self._chance = random.Random(1)

    def generate(self) -> float:
        """One generate call's, lognormal."""
        return self._median * self._chance.lognormvariate(0, self._sigma) if self._median else 0.0


class State:
    """What lies in the storage, and how many calls there were."""

    def __init__(self, latencies: Latencies) -> None:
        self.latencies = latencies
        self.files: dict[str, dict[str, str]] = {}
        self.active_at: dict[str, float] = {}
        self.calls = 0
        self.origin = ""


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Connection(asyncio.Protocol):
    """One connection: whole requests in, whole responses out, one at a time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).decode("latin-1")
            request_line, *lines = head.split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers.get("content-length", "0"))
            if len(self._received) < end + 4 + length:
                return
            body = bytes(self._received[end + 4 : end + 4 + length])
            del self._received[: end + 4 + length]
            method, path, _ = request_line.split(" ")
            self._state.calls += 1
            wait, answer = self._answer(method, path, headers, body)
            if wait:
                asyncio.get_running_loop().call_later(wait, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(answer)

    def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[float, bytes]:
        state = self._state
        if path.endswith(":generateContent"):
            return state.latencies.generate(), reply(ANSWER)
        if path.startswith("/upload/"):
            return self._upload(path, headers, body)
        if "/files/" in path:
            name = "files/" + path.rsplit("/", 1)[1]
            if method == "DELETE":
                return 0.0, reply(b"{}")
            return 0.0, reply(json.dumps(self._file(name)).encode())
        return 0.0, reply(MODEL)

    def _upload(self, path: str, headers: dict[str, str], body: bytes) -> tuple[float, bytes]:
        state = self._state
        if headers.get("x-goog-upload-command") == "start":
            name = f"files/f{len(state.files):011d}"
            mime_type = headers["x-goog-upload-header-content-type"]
            state.files[name] = {"name": name, "mimeType": mime_type, "uri": f"{state.origin}/v1beta/{name}"}
            url = f"{state.origin}/upload/v1beta/files?upload_id={name[6:]}"
            return 0.0, reply(b"", f"X-Goog-Upload-URL: {url}", "X-Goog-Upload-Status: active")
        file = state.files["files/" + path.rsplit("=", 1)[1]]
        if "finalize" not in headers["x-goog-upload-command"]:
            partial = state.files.setdefault("partial " + file["name"], {"size": "0"})
            partial["size"] = str(int(partial["size"]) + len(body))
            return 0.0, reply(b"", "X-Goog-Upload-Status: active")
        before = int(state.files.pop("partial " + file["name"], {"size": "0"})["size"])
        file["sizeBytes"] = str(before + len(body))
        if not before:
            file["sha256Hash"] = base64.b64encode(hashlib.sha256(body).hexdigest().encode()).decode()
        video = file["mimeType"].startswith("video/")
        processing = state.latencies.processing if video else 0.0
        wait = state.latencies.upload
        state.active_at[file["name"]] = asyncio.get_running_loop().time() + wait + processing
        file_now = json.dumps({"file": {**file, "state": "PROCESSING" if processing else "ACTIVE"}})
        return wait, reply(file_now.encode(), "X-Goog-Upload-Status: final")

    def _file(self, name: str) -> dict[str, str]:
        ready = asyncio.get_running_loop().time() >= self._state.active_at[name]
        return {**self._state.files[name], "state": "ACTIVE" if ready else "PROCESSING"}


async def serve(latencies: Latencies) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    state = State(latencies)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=4096)
    state.origin = "http://{}:{}".format(*server.sockets[0].getsockname())
    print(state.origin, flush=True)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu_seconds": used.ru_utime + used.ru_stime, "calls": state.calls}), flush=True)


def main() -> None:
    """Read the latencies and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("upload", "generate-median", "generate-sigma", "processing"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--uvloop", action="store_true")
    given = parser.parse_args()
    runner: Callable[[Awaitable[None]], None] = asyncio.run  # type: ignore[assignment]
    if given.uvloop:
        import uvloop

        runner = uvloop.run  # type: ignore[assignment]
    runner(serve(Latencies(given.upload, given.generate_median, given.generate_sigma, given.processing)))


if __name__ == "__main__":
    sys.exit(main())
