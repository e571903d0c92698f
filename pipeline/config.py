"""Builds a RunSpec out of the command line, a TOML file and the environment, in that order of precedence."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from pipeline.errors import UsageError
from pipeline.limits import Limits
from pipeline.records import Json
from pipeline.spec import (
    DEFAULT_BASE_URL,
    DEFAULT_MODEL,
    DEFAULT_PROMPT,
    EndpointSpec,
    GenerationSpec,
    ItemDefaults,
    OnChange,
    QuotaSpec,
    RunSpec,
    Selection,
    SourceSpec,
    StopSpec,
    UploadSpec,
    Via,
)

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
PositiveSeconds = Annotated[float, Meta(gt=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]


class RunSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[run]``."""

    output: str | None = None
    model: str = DEFAULT_MODEL
    prompt: str | None = None
    template: str | None = None
    system: str | None = None
    concurrency: Count = 64
    uploads: Count = 16
    group: Literal["file", "folder"] = "file"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_age_seconds: Seconds = 0.0
    media_roots: tuple[str, ...] = ()
    on_change: OnChange = "run"
    grace_seconds: Seconds = 120.0
    deadline: str | None = None
    max_time_seconds: PositiveSeconds | None = None
    in_doubt: Literal["retry", "hold"] = "retry"
    max_failed_share: Share = 0.5


class EndpointSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[endpoint]``."""

    base_url: str = DEFAULT_BASE_URL
    api_version: Literal["v1beta", "v1"] = "v1beta"
    trust_env: bool = False


class UploadSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[upload]``."""

    via: Via = "auto"
    inline_max_bytes: Annotated[int, Meta(ge=0)] = UploadSpec().inline_max_bytes
    attempts: Count = 8
    timeout_seconds: PositiveSeconds | None = None
    storage_wait_seconds: Seconds = 600.0
    keep: bool = True


class ActivationSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[activation]``."""

    deadline_seconds: PositiveSeconds = 900.0


class GenerationSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[generation]``; ``schema`` is a JSON Schema as a table, or the path of a JSON file that holds one."""

    timeout_seconds: PositiveSeconds = 600.0
    attempts: Count = 6
    schema: str | dict[str, Json] | None = None
    config: dict[str, Json] = {}
    safety: dict[str, str] = {}


class QuotaSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[quota]``."""

    rpm: Positive | None = None
    tpm: Positive | None = None
    rpd: Count | None = None
    share: Share = 1.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole configuration file."""

    run: RunSection = RunSection()
    endpoint: EndpointSection = EndpointSection()
    upload: UploadSection = UploadSection()
    activation: ActivationSection = ActivationSection()
    generation: GenerationSection = GenerationSection()
    quota: QuotaSection = QuotaSection()
    limits: Limits = Limits()


class CommandLine(msgspec.Struct, frozen=True, kw_only=True):
    """What only the command line can say, and ``settings``: dotted key to value, as options and ``--set`` gave them."""

    source: str
    config_file: Path | None = None
    settings: Mapping[str, Json] = {}
    emulator: bool = False
    limit: int | None = None
    retry_failed: bool = False
    quiet: bool = False
    verbose: bool = False


def run_spec(line: CommandLine, environ: Mapping[str, str], now: datetime) -> RunSpec:
    """The RunSpec of a command line. ``now`` is aware, local time. Raises ``UsageError`` with one sentence."""
    config, folder = read(line, environ)
    source = source_path(line.source)
    output, is_default = output_path(line, config, folder, source)
    return RunSpec(
        output=output,
        output_is_default=is_default,
        source_name="-" if source is None else str(source.resolve()),
        source=SourceSpec(
            path=source,
            group=config.run.group,
            include=config.run.include,
            exclude=config.run.exclude,
            min_age_seconds=config.run.min_age_seconds,
            media_roots=tuple(folder / root for root in config.run.media_roots),
        ),
        defaults=item_defaults(config, folder),
        selection=Selection(
            on_change=config.run.on_change,
            retry_failed=line.retry_failed,
            in_doubt=config.run.in_doubt,
            limit=line.limit,
            emulated=line.emulator,
        ),
        endpoint=endpoint(config.endpoint, emulator=line.emulator),
        upload=UploadSpec(**msgspec.structs.asdict(config.upload), uploads=config.run.uploads),
        activation_deadline_seconds=config.activation.deadline_seconds,
        generation=GenerationSpec(
            concurrency=config.run.concurrency,
            timeout_seconds=config.generation.timeout_seconds,
            attempts=config.generation.attempts,
        ),
        quota=QuotaSpec(**msgspec.structs.asdict(config.quota)),
        stop=StopSpec(
            deadline=deadline(config.run, now),
            grace_seconds=config.run.grace_seconds,
            max_failed_share=config.run.max_failed_share,
        ),
        limits=config.limits,
        verbose=line.verbose,
        quiet=line.quiet,
    )


def read(line: CommandLine, environ: Mapping[str, str]) -> tuple[Config, Path]:
    """The merged configuration, and the folder that its relative paths start from."""
    raw: dict[str, Json] = {}
    folder = Path()
    if base_url := environ.get("GOOGLE_GEMINI_BASE_URL"):
        raw["endpoint"] = {"base_url": base_url}
    if line.config_file:
        folder = line.config_file.parent
        merge(raw, toml_file(line.config_file))
    absolute: dict[str, Json] = {}
    for key, value in line.settings.items():
        put(absolute, key, value)
    if folder != Path():
        absolute = from_here(absolute)
    for given, other in (("prompt", "template"), ("template", "prompt")):
        if given in absolute.get("run", {}) and isinstance(raw.get("run"), dict):
            raw["run"].pop(other, None)  # the command line's prompt replaces the file's template, and the reverse
    merge(raw, absolute)
    check_keys(raw, Config)
    try:
        return msgspec.convert(raw, Config), folder
    except msgspec.ValidationError as error:
        raise UsageError(f"configuration: {error}") from error


def toml_file(path: Path) -> dict[str, Json]:
    """Read a TOML file. Raises ``UsageError``."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"can't read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def setting(text: str) -> tuple[str, Json]:
    """``--set KEY=VALUE``: VALUE is read as TOML, and as a string where it is none. Raises ``UsageError``."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes KEY=VALUE, like generation.timeout_seconds=30, not {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def put(into: dict[str, Json], dotted: str, value: Json) -> None:
    """Set the dotted key. Raises ``UsageError`` where a part of it is no table."""
    *tables, last = dotted.split(".")
    for table in tables:
        inner = into.setdefault(table, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{dotted}: {table} is not a table")
        into = inner
    into[last] = value


def merge(into: dict[str, Json], over: Mapping[str, Json]) -> None:
    """Lay ``over`` on ``into``, table by table."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def from_here(settings: dict[str, Json]) -> dict[str, Json]:
    """Paths given on the command line start from the working directory, not from the file's folder."""
    run = settings.get("run", {})
    if isinstance(run.get("output"), str):
        run["output"] = str(Path(run["output"]).absolute())
    if isinstance(run.get("media_roots"), list):
        run["media_roots"] = [str(Path(root).absolute()) for root in run["media_roots"]]
    generation = settings.get("generation", {})
    if isinstance(generation.get("schema"), str):
        generation["schema"] = str(Path(generation["schema"]).absolute())
    template = run.get("template")
    if isinstance(template, str) and Path(template).is_file():
        run["template"] = str(Path(template).absolute())
    return settings


def check_keys(raw: Mapping[str, Json], struct: type[msgspec.Struct], at: str = "") -> None:
    """Raises ``UsageError`` for an unknown key, naming the nearest known one."""
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in raw.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise UsageError(f"unknown configuration key {at}{key}; did you mean {at}{nearest[0]}?")
        inner = known[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            if not isinstance(value, dict):
                raise UsageError(f"configuration: {at}{key} is a section, not a value")
            check_keys(value, inner, f"{at}{key}.")


def source_path(source: str) -> Path | None:
    """SOURCE as a path, None for stdin. Raises ``UsageError`` where there is nothing."""
    if source == "-":
        return None
    path = Path(source)
    if not path.exists():
        raise UsageError(f"there is no {source}: SOURCE is a folder of media, a manifest file, or - for stdin")
    return path


def output_path(line: CommandLine, config: Config, folder: Path, source: Path | None) -> tuple[Path, bool]:
    """The run folder, and whether it is the default one. Raises ``UsageError``."""
    if config.run.output:
        return folder / config.run.output, False
    if source is None:
        raise UsageError("SOURCE is stdin: name the run folder with --output RUN")
    name = source.resolve().name
    return Path("runs") / (f"{name}.emulator" if line.emulator else name), True


def item_defaults(config: Config, folder: Path) -> ItemDefaults:
    """What rows are sent with that don't say otherwise. Raises ``UsageError``."""
    run, generation = config.run, config.generation
    if run.prompt is not None and run.template is not None:
        raise UsageError("give either a prompt or a template, not both")
    template = run.template
    if template and (folder / template).is_file():
        template = str(folder / template)
    return ItemDefaults(
        model=run.model.removeprefix("models/"),
        prompt=run.prompt if run.prompt is not None else DEFAULT_PROMPT,
        template=template,
        system=run.system,
        generation=generation.config,
        safety=generation.safety,
        schema=schema(generation.schema, folder),
    )


def schema(given: str | dict[str, Json] | None, folder: Path) -> dict[str, Json] | None:
    """The JSON Schema in place, or in the file that is named. Raises ``UsageError``."""
    if given is None:
        return None
    if isinstance(given, str):
        path = folder / given
        try:
            given = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except OSError as error:
            raise UsageError(f"can't read the schema {path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise UsageError(f"the schema {path} is not a JSON object: {error}") from error
    import jsonschema  # lazily: most runs ask for no schema

    try:
        jsonschema.validators.validator_for(given, default=jsonschema.Draft202012Validator).check_schema(given)
    except jsonschema.SchemaError as error:
        raise UsageError(f"the schema is not a valid JSON Schema: {error.message}") from error
    return given


def endpoint(section: EndpointSection, *, emulator: bool) -> EndpointSpec:
    """The endpoint; https, or plain http to this machine only. Raises ``UsageError``."""
    url = urlsplit(section.base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"the base URL {section.base_url!r} is not an http(s) URL")
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise UsageError(f"plain http would show the key to the network: use https for {url.hostname}")
    if url.username or url.password or url.query or url.fragment:
        raise UsageError("the base URL must hold no user, password, query or fragment")
    google = urlsplit(DEFAULT_BASE_URL).hostname
    backend = "emulator" if emulator else "gemini" if url.hostname == google else url.hostname
    return EndpointSpec(
        base_url=section.base_url.rstrip("/"),
        api_version=section.api_version,
        trust_env=section.trust_env,
        backend=backend,
    )


def deadline(run: RunSection, now: datetime) -> datetime | None:
    """The earlier of the next occurrence of ``deadline`` (local HH:MM) and ``max_time_seconds`` from ``now``."""
    moments = []
    if run.deadline is not None:
        try:
            at = time.fromisoformat(run.deadline)
        except ValueError as error:
            raise UsageError(f"the deadline is a local time like 06:30, not {run.deadline!r}") from error
        naive = datetime.combine(now.date(), at.replace(tzinfo=None))
        if naive <= now.replace(tzinfo=None):
            naive += timedelta(days=1)
        moments.append(naive.astimezone())  # local time with that day's offset: days that change the clock count
    if run.max_time_seconds is not None:
        moments.append(now + timedelta(seconds=run.max_time_seconds))
    return min(moments, default=None)


UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def span_seconds(text: str) -> float:
    """``4h``, ``90m``, ``30s``, ``1.5h`` or a number of seconds. Raises ``UsageError``."""
    number, unit = (text[:-1], text[-1]) if text and text[-1] in UNITS_SECONDS else (text, "s")
    try:
        return float(number) * UNITS_SECONDS[unit]
    except ValueError as error:
        raise UsageError(f"a time is a number with s, m, h or d, like 4h, not {text!r}") from error


def api_key(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The key, None where there is none; and a warning where two different ones are set."""
    gemini, google = environ.get("GEMINI_API_KEY"), environ.get("GOOGLE_API_KEY")
    warning = None
    if gemini and google and gemini != google:
        warning = "GEMINI_API_KEY and GOOGLE_API_KEY are both set and differ: using GEMINI_API_KEY"
    return gemini or google or None, warning


def required_key(environ: Mapping[str, str], *, emulator_hint: bool) -> str:
    """The key. Raises ``UsageError`` where there is none."""
    key, _ = api_key(environ)
    if key is None:
        hint = ", or add --emulator to run without one" if emulator_hint else ""
        raise UsageError(f"there is no API key: set GEMINI_API_KEY{hint}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError("the API key holds a character that no key has; was a line break or quote copied with it?")
    return key


def environment() -> Mapping[str, str]:
    """The process environment; the only place that reads it."""
    return os.environ
