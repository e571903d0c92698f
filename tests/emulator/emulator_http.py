"""Raw HTTP to the emulator and the sample media, for its tests."""

import http.client
import json
import urllib.parse
from pathlib import Path
from typing import Any, NamedTuple

MEDIA = Path(__file__).parents[2] / "sample_manifests" / "media"
MODEL = "gemini-3.7-flash"


class Answer(NamedTuple):
    """A reply as it came."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """Raw requests with a key, one connection each."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def __call__(
        self, method: str, url: str, body: Any = b"", headers: dict[str, str] | None = None, key: str | None = "k"
    ) -> Answer:
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(self.base_url, url))
        connection = http.client.HTTPConnection(parts.netloc, timeout=10)
        try:
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            keyed = {"x-goog-api-key": key} if key else {}
            connection.request(method, f"{parts.path}?{parts.query}", sent, {**keyed, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def start(self, file: dict[str, Any] | None = None, size: int | None = None, mime: str = "image/png") -> Answer:
        headers = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Type": mime,
        }
        if size is not None:
            headers["X-Goog-Upload-Header-Content-Length"] = str(size)
        return self("POST", "/upload/v1beta/files", {"file": file or {}}, headers)

    def send(self, url: str, command: str, offset: int | None = None, body: bytes = b"") -> Answer:
        headers = {"X-Goog-Upload-Command": command}
        if offset is not None:
            headers["X-Goog-Upload-Offset"] = str(offset)
        return self("POST", url, body, headers, key=None)

    def upload(self, content: bytes, mime: str = "image/png", **file: Any) -> dict[str, Any]:
        url = self.start(file, len(content), mime).headers["X-Goog-Upload-URL"]
        return self.send(url, "upload, finalize", 0, content).json["file"]

    def generate(self, *parts: dict[str, Any], model: str = MODEL, **more: Any) -> Answer:
        body = {"contents": [{"parts": list(parts)}], **more}
        return self("POST", f"/v1beta/models/{model}:generateContent", body)
