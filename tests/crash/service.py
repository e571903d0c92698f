"""The model service as one ``Transport`` in memory: it answers at once, and writes down whom it answered.

It lives inside the process of a run, which may be killed; what it has to remember goes to a journal, a line for each
event, and is read back from there.
"""

import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from pipeline.gemini.api import Call, Reply, Route

ORIGIN = "https://generativelanguage.googleapis.com"
LIFE = timedelta(hours=48)
REFUSED = "refused"
"""A prompt that is too long, for good."""
UNLUCKY = "unlucky"
"""A prompt whose call fails for no known reason, which another night may mend."""


def answer_to(prompt: str, media: list[str]) -> str:
    """The text that answers a question."""
    return json.dumps([prompt, media])


class Service:
    """Answers ``Transport``."""

    def __init__(self, journal: Path, now: Callable[[], datetime], moment: Callable[[], None]) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._files = {e["name"]: e for e in read_journal(journal) if e["event"] == "uploaded"}
        self._sessions: dict[str, dict[str, Any]] = {}
        self._now = now
        self._moment = moment

    @asynccontextmanager
    async def open(self, **_: object) -> AsyncIterator["Service"]:
        """In the place of ``open_transport``."""
        yield self

    async def send(self, call: Call) -> Reply:
        self._moment()
        try:
            match call.route:
                case Route.GENERATE:
                    return self._generate(call)
                case Route.UPLOAD_START:
                    return self._begin_upload(call)
                case Route.UPLOAD_CHUNK:
                    return await self._end_upload(call)
                case Route.FILE_GET:
                    name = call.path.split("/", 1)[1]
                    return _ok(self._file(name)) if self._is_there(name) else _error(403, "PERMISSION_DENIED")
            return _ok({"name": call.path})
        finally:
            self._moment()

    def _generate(self, call: Call) -> Reply:
        assert isinstance(call.body, bytes)
        *media_parts, text = json.loads(call.body)["contents"][0]["parts"]
        prompt, media = text["text"], []
        for part in media_parts:
            name = part["fileData"]["fileUri"].split("/v1beta/")[1]
            self._note("sent expired" if not self._is_there(name) else "named", name=name)
            if not self._is_there(name):
                return _error(403, "PERMISSION_DENIED", "You do not have permission to access the File.")
            media.append(self._files[name]["sha256"])
        if prompt in (REFUSED, UNLUCKY):
            self._note("asked", key=call.subject, prompt=prompt, media=media)
            return TOO_LONG if prompt == REFUSED else _error(418, "UNKNOWN")
        self._note("paid", key=call.subject, prompt=prompt, media=media)
        candidate = {"content": {"parts": [{"text": answer_to(prompt, media)}]}, "finishReason": "STOP"}
        return _ok({"candidates": [candidate], "usageMetadata": {"totalTokenCount": 5}})

    def _begin_upload(self, call: Call) -> Reply:
        session = str(len(self._sessions))
        self._sessions[session] = {"mime_type": call.headers["X-Goog-Upload-Header-Content-Type"]}
        headers = {"x-goog-upload-url": f"{ORIGIN}/upload/{session}", "x-goog-upload-status": "active"}
        return Reply(status=200, headers=headers, body=b"")

    async def _end_upload(self, call: Call) -> Reply:
        content = call.body if isinstance(call.body, bytes) else b"".join([chunk async for chunk in call.body()])
        name = f"files/f{len(self._files)}"
        self._files[name] = {
            "name": name,
            "mime_type": self._sessions[str(call.url).rsplit("/", 1)[1]]["mime_type"],
            "sha256": sha256(content).hexdigest(),
            "size": len(content),
            "expires_at": (self._now() + LIFE).isoformat(),
        }
        self._note("uploaded", **self._files[name])
        return _ok({"file": self._file(name)}, **{"x-goog-upload-status": "final"})

    def _file(self, name: str) -> dict[str, Any]:
        file = self._files[name]
        return {
            "name": name,
            "uri": f"{ORIGIN}/v1beta/{name}",
            "mimeType": file["mime_type"],
            "sizeBytes": str(file["size"]),
            "sha256Hash": base64.b64encode(file["sha256"].encode()).decode(),
            "expirationTime": file["expires_at"],
            "state": "ACTIVE",
        }

    def _is_there(self, name: str) -> bool:
        return name in self._files and datetime.fromisoformat(self._files[name]["expires_at"]) > self._now()

    def _note(self, event: str, **facts: object) -> None:
        os.write(self._journal, json.dumps({"event": event, "run": os.getpid(), **facts}).encode() + b"\n")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Every event so far."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _ok(body: object, **headers: str) -> Reply:
    return Reply(status=200, headers={"content-type": "application/json", **headers}, body=msgspec.json.encode(body))


def _error(status: int, name: str, message: str = "no") -> Reply:
    body = {"error": {"code": status, "message": message, "status": name}}
    return Reply(status=status, headers={"content-type": "application/json"}, body=msgspec.json.encode(body))


TOO_LONG = _error(
    400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
)
