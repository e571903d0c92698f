"""The state of the File API: names, states, expiry and storage; changes when the service treats files otherwise.

Pure: time is an argument. Fields and rules: ai.google.dev/api/files, ai.google.dev/gemini-api/docs/files, and the
object quoted in googleapis/js-genai#381.
"""

import base64
import hashlib
import math
import random
import re
import string
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.emulator import api_errors
from pipeline.emulator.reply import Refusal
from pipeline.limits import DISPLAY_NAME_CHARACTERS, Limits

NAME_CHARACTERS = 12
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
PAGE_SIZE_DEFAULT = 10
PAGE_SIZE_MAX = 100


@dataclass(slots=True, kw_only=True)
class StoredFile:
    """One file and what the service says of it."""

    identifier: str
    project: str
    sequence: int
    display_name: str
    mime_type: str
    size_bytes: int
    sha256: str
    created_at: float
    expires_at: float
    ready_at: float
    failure: dict[str, Any] | None = None
    claims: dict[str, str] = field(default_factory=dict)
    """Fields that the service tells wrongly, for faults."""
    duration_seconds: float | None = None

    def state(self, now: float) -> str:
        """PROCESSING, ACTIVE or FAILED."""
        if now < self.ready_at:
            return "PROCESSING"
        return "FAILED" if self.failure else "ACTIVE"

    def render(self, now: float, base_url: str) -> dict[str, Any]:
        """The File resource, bare."""
        state = self.state(now)
        resource: dict[str, Any] = {"name": f"files/{self.identifier}"}
        if self.display_name:
            resource["displayName"] = self.display_name
        resource |= {
            "mimeType": self.mime_type,
            "sizeBytes": str(self.size_bytes),
            "createTime": _timestamp(self.created_at),
            "updateTime": _timestamp(self.created_at),
            "expirationTime": _timestamp(self.expires_at, self.sha256),
            # The service encodes the hexadecimal text, not the digest: 88 characters (googleapis/js-genai#381).
            "sha256Hash": base64.b64encode(self.sha256.encode()).decode(),
            "uri": f"{base_url}/v1beta/files/{self.identifier}",
            "state": state,
            "source": "UPLOADED",
        }
        if state == "ACTIVE" and self.duration_seconds is not None:
            resource["videoMetadata"] = {"videoDuration": f"{self.duration_seconds:g}s"}
        if state == "FAILED":
            resource["error"] = self.failure
        return resource | self.claims


class FileStore:
    """Every file of every project; time only moves forward."""

    def __init__(self, limits: Limits, seed: int) -> None:
        self._limits = limits
        self._files: dict[str, StoredFile] = {}
        self._reserved: set[str] = set()
        self._random = random.Random(seed)  # noqa: S311 - names, not secrets
        self._sequence = 0
        self._used_bytes: Counter[str] = Counter()

    def reserve_name(self, chosen: str, now: float) -> str:
        """The identifier of a new file: the client's own (``files/...``) or a random one."""
        self._expire(now)
        if not chosen:
            return self._invent()
        identifier = check_name(chosen, "CreateFileRequest.file.name")
        if identifier in self._files or identifier in self._reserved:
            raise Refusal(api_errors.file_exists(identifier))
        self._reserved.add(identifier)
        return identifier

    def release_name(self, identifier: str) -> None:
        """An upload ended without a file."""
        self._reserved.discard(identifier)

    def require_space(self, project: str, more_bytes: int, now: float) -> None:
        """Refuse what would not fit into the project's storage."""
        if more_bytes > self._limits.file_bytes:
            raise Refusal(api_errors.invalid_argument(f"File size exceeds the limit: {self._limits.file_bytes} bytes."))
        if self.used_bytes(project, now) + more_bytes > self._limits.project_storage_bytes:
            raise Refusal(api_errors.storage_full(self._limits.project_storage_bytes))

    def used_bytes(self, project: str, now: float) -> int:
        """Storage in use by a project."""
        self._expire(now)
        return self._used_bytes[project]

    def add(
        self,
        *,
        identifier: str,
        project: str,
        display_name: str,
        mime_type: str,
        size_bytes: int,
        sha256: str,
        processing_seconds: float,
        now: float,
    ) -> StoredFile:
        """Store a finished upload."""
        self._sequence += 1
        self._reserved.discard(identifier)
        file = StoredFile(
            identifier=identifier,
            project=project,
            sequence=self._sequence,
            display_name=display_name,
            mime_type=mime_type,
            size_bytes=size_bytes,
            sha256=sha256,
            created_at=now,
            # The service's expiry lies a fraction of a second short of 48 hours (googleapis/js-genai#381).
            expires_at=now + self._limits.file_life_seconds - 0.46,
            ready_at=now + processing_seconds,
        )
        self._files[identifier] = file
        self._used_bytes[project] += size_bytes
        return file

    def find(self, identifier: str, project: str, now: float) -> StoredFile | None:
        """The file, where it exists, belongs to the project and has not expired."""
        self._expire(now)
        file = self._files.get(identifier)
        return file if file is not None and file.project == project else None

    def get(self, identifier: str, project: str, now: float) -> StoredFile:
        """The file, or the 403 that stands for every reason it cannot be had."""
        file = self.find(identifier, project, now)
        if file is None:
            raise Refusal(api_errors.file_missing(identifier))
        return file

    def delete(self, identifier: str, project: str, now: float) -> None:
        """Remove a file."""
        self._remove(self.get(identifier, project, now))

    def page(self, project: str, size: int, token: str, now: float) -> tuple[list[StoredFile], str]:
        """One page, newest first, and the token of the next one."""
        self._expire(now)
        before = _sequence_of(token)
        older = [file for file in reversed(self._files.values()) if file.project == project and file.sequence < before]
        page = older[:size]
        return page, _token_of(page[-1].sequence) if len(older) > size else ""

    def _expire(self, now: float) -> None:
        # All files live equally long, so the oldest entries expire first.
        while self._files:
            oldest = next(iter(self._files.values()))
            if oldest.expires_at > now:
                return
            self._remove(oldest)

    def _remove(self, file: StoredFile) -> None:
        del self._files[file.identifier]
        self._used_bytes[file.project] -= file.size_bytes

    def _invent(self) -> str:
        while True:
            name = "".join(self._random.choices(string.ascii_lowercase + string.digits, k=NAME_CHARACTERS))
            if name not in self._files:
                return name


def check_name(name: str, field_path: str) -> str:
    """``files/{id}`` or ``{id}`` as an identifier; 400 where it cannot be one."""
    identifier = name.removeprefix("files/")
    if not NAME_PATTERN.fullmatch(identifier):
        raise Refusal(
            api_errors.invalid_argument(
                f'* {field_path}: File ID (name without the "files/" prefix) may only contain lowercase alphanumeric '
                "characters or dashes (-), cannot begin or end with a dash and can be at most 40 characters long.\n"
            )
        )
    return identifier


def check_display_name(display_name: str) -> str:
    """A display name within its length."""
    if len(display_name) > DISPLAY_NAME_CHARACTERS:
        raise Refusal(
            api_errors.invalid_argument(
                f"* CreateFileRequest.file.display_name: must be at most {DISPLAY_NAME_CHARACTERS} characters long.\n"
            )
        )
    return display_name


def page_size(text: str, default: int, maximum: int) -> int:
    """``pageSize`` within its range."""
    size = int(text) if re.fullmatch(r"\d{1,6}", text) else (default if not text else -1)
    if not 0 <= size <= maximum:
        raise Refusal(api_errors.invalid_argument(f"* page_size: must be between 0 and {maximum}.\n"))
    return size or default


def _token_of(sequence: int) -> str:
    return base64.urlsafe_b64encode(f"before:{sequence}".encode()).decode().rstrip("=")


def _sequence_of(token: str) -> float:
    if not token:
        return math.inf
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        return int(text.removeprefix("before:"))
    except ValueError as problem:
        raise Refusal(api_errors.invalid_argument("* page_token: Invalid page token.\n")) from problem


def _timestamp(seconds: float, salt: str = "") -> str:
    """RFC 3339; with nine digits where ``salt`` is given, as the service writes ``expirationTime``."""
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
    digits = f"{int(hashlib.sha256(salt.encode()).hexdigest(), 16) % 1000:03d}" if salt else ""
    return f"{text}{digits}Z"
