"""What a run is to do, as one frozen value: config.py builds it, compose.py turns it into an open engine."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.limits import Limits
from pipeline.records import Json

DEFAULT_BASE_URL = "https://generativelanguage.googleapis.com"
DEFAULT_MODEL = "gemini-3.8-flash"
DEFAULT_PROMPT = "Describe this media."

OnChange = Literal["run", "keep", "stop"]
Via = Literal["auto", "inline", "files"]


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Where the items come from. ``path`` is None for stdin (JSONL); globs are of ``pathlib``'s kind."""

    path: Path | None
    group: Literal["file", "folder"] = "file"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_age_seconds: float = 0.0
    media_roots: tuple[Path, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether SOURCE is a folder of media, not a manifest."""
        return self.path is not None and self.path.is_dir()


class ItemDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a row that doesn't say otherwise is sent with.

    ``prompt`` is a template given in place; ``template`` a template's name or file and wins over it, and
    ``template_file`` the file that it may mean.
    """

    model: str = DEFAULT_MODEL
    prompt: str = DEFAULT_PROMPT
    template: str | None = None
    template_file: Path | None = None
    system: str | None = None
    generation: dict[str, Json] = {}
    safety: dict[str, str] = {}
    schema: dict[str, Json] | None = None


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which items are sent. ``emulated`` tells whether this run answers from the emulator."""

    on_change: OnChange = "run"
    retry_failed: bool = False
    in_doubt: Literal["retry", "hold"] = "retry"
    limit: int | None = None
    emulated: bool = False


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoint. ``backend`` is what result lines say: gemini, emulator, or the host of another endpoint."""

    base_url: str = DEFAULT_BASE_URL
    api_version: Literal["v1beta", "v1"] = "v1beta"
    trust_env: bool = False
    backend: str = "gemini"


class UploadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How media travel. ``attempts`` counts tries of one chunk that bring no progress."""

    via: Via = "auto"
    inline_max_bytes: int = 512 * 1024
    """Measured: an item of 200 kB costs less inside its request, one of 1 MB less by file; base64 adds a third to the
    bytes, which every retry sends again, and the File API adds two calls."""
    attempts: int = 8
    timeout_seconds: float | None = None
    storage_wait_seconds: float = 600.0
    keep: bool = True
    uploads: int = 16


class GenerationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How answers are asked for."""

    concurrency: int = 64
    timeout_seconds: float = 600.0
    attempts: int = 6


class QuotaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The project's quota as hard caps, where known. ``share`` is the part of what is found out that we use."""

    rpm: float | None = None
    tpm: float | None = None
    rpd: int | None = None
    share: float = 1.0


class StopSpec(msgspec.Struct, frozen=True, kw_only=True):
    """When a run ends early. ``deadline`` is the moment the process must have ended by."""

    deadline: datetime | None = None
    grace_seconds: float = 120.0
    max_failed_share: float = 0.5


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one run needs to know. ``api_key`` is only ever handed to the transport."""

    output: Path
    output_is_default: bool = False
    source_name: str
    """SOURCE as the run folder remembers it: an absolute path, or ``-``."""
    source: SourceSpec
    defaults: ItemDefaults = ItemDefaults()
    selection: Selection = Selection()
    endpoint: EndpointSpec = EndpointSpec()
    upload: UploadSpec = UploadSpec()
    activation_deadline_seconds: float = 900.0
    generation: GenerationSpec = GenerationSpec()
    quota: QuotaSpec = QuotaSpec()
    stop: StopSpec = StopSpec()
    limits: Limits = Limits()
    verbose: bool = False
    quiet: bool = False

    def __repr__(self) -> str:
        return f"RunSpec(source={self.source_name!r}, output={str(self.output)!r})"
