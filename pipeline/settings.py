"""What a configuration file may say, and how it is read: command line over file over environment."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

from pipeline.errors import UsageError
from pipeline.limits import Limits
from pipeline.records import Json
from pipeline.spec import DEFAULT_BASE_URL, DEFAULT_MODEL, OnChange, UploadSpec, Via

YEAR_SECONDS: Final = 366 * 86400
"""Longer waits are mistakes, and infinite ones can't be waited for."""

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=YEAR_SECONDS)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=YEAR_SECONDS)]
Positive = Annotated[float, Meta(gt=0, le=1e15)]
Name = Annotated[str, Meta(min_length=1)]
Share = Annotated[float, Meta(gt=0, le=1)]


class RunSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[run]``."""

    output: Name | None = None
    model: Name = DEFAULT_MODEL
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


def read(line: CommandLine, environ: Mapping[str, str]) -> tuple[Config, Path]:
    """The merged configuration, and the folder that its relative paths start from."""
    raw: dict[str, Json] = {}
    folder = Path()
    if (base_url := environ.get("GOOGLE_GEMINI_BASE_URL")) and not line.emulator:
        raw["endpoint"] = {"base_url": base_url}
    if line.config_file:
        folder = line.config_file.parent
        given = toml_file(line.config_file)
        check_keys(given, Config)
        merge(raw, given)
    absolute: dict[str, Json] = {}
    for key, value in line.settings.items():
        put(absolute, key, value)
    check_keys(absolute, Config)
    if folder != Path():
        absolute = from_here(absolute)
    for chosen, other in (("prompt", "template"), ("template", "prompt")):
        if chosen in absolute.get("run", {}) and isinstance(raw.get("run"), dict):
            raw["run"].pop(other, None)  # the command line's prompt replaces the file's template, and the reverse
    merge(raw, absolute)
    try:
        return msgspec.convert(raw, Config), folder
    except msgspec.ValidationError as error:
        raise UsageError(explained(str(error), raw)) from error


TYPE_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a table",
}


def explained(error: str, raw: Mapping[str, Json]) -> str:
    """What msgspec says of a value, in the words of a user: the key, the value, and what may stand there."""
    problem, _, path = error.partition(" - at `$.")
    key = path.rstrip("`").replace("[...]", "")
    value: Json = raw
    struct: Json = Config
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", key):
        if index:
            value = value[int(index)] if isinstance(value, list) else value
            continue
        value = value.get(name) if isinstance(value, dict) else value
        fields = (
            msgspec.structs.fields(struct) if isinstance(struct, type) and issubclass(struct, msgspec.Struct) else ()
        )
        struct = next((field.type for field in fields if field.name == name), None)
    allowed = [choice for choice in get_args(struct) if isinstance(choice, str)]
    if allowed:
        expected = f"expected one of {', '.join(allowed)}"
    elif "`array`" in problem:
        expected = f"""expected a list, like --set '{key}=["one", "two"]'"""
    else:
        expected = re.sub(r"`([^`]*)`", _in_words, problem.partition(", got ")[0])
        expected = expected[:1].lower() + expected[1:].replace(" of length >= 1", " that is not empty")
        if expected.endswith("text"):
            expected += " in quotes"
    shown = repr(value) if isinstance(value, str) else value
    return f"configuration: {key} is {shown}: {expected}"


def _in_words(types: re.Match[str]) -> str:
    """``str | null`` as text: what is null can't be written in TOML."""
    return " or ".join(TYPE_WORDS.get(name, name) for name in types[1].split(" | ") if name != "null")


def toml_file(path: Path) -> dict[str, Json]:
    """Read a TOML file. Raises ``UsageError``."""
    import tomllib

    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"can't read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def setting(text: str) -> tuple[str, Json]:
    """``--set KEY=VALUE``: VALUE is read as TOML, and as a string where it is none. Raises ``UsageError``."""
    import tomllib

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
    if isinstance(template, str) and ("/" in template or ("." in template and os.path.isfile(template))):  # noqa: PTH113
        run["template"] = str(Path(template).absolute())
    return settings


def check_keys(raw: Mapping[str, Json], struct: type[msgspec.Struct], at: str = "") -> None:
    """Raises ``UsageError`` for an unknown key, naming the nearest known one."""
    known = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in raw.items():
        if key not in known:
            import difflib

            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise UsageError(f"unknown configuration key {at}{key}; did you mean {at}{nearest[0]}?")
        inner = known[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            if not isinstance(value, dict):
                raise UsageError(f"configuration: {at}{key} is a section, not a value")
            check_keys(value, inner, f"{at}{key}.")


UNITS_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def span_seconds(text: str) -> float:
    """``4h``, ``90m``, ``30s``, ``1.5h`` or a number of seconds. Raises ``UsageError``."""
    number, unit = (text[:-1], text[-1]) if text and text[-1] in UNITS_SECONDS else (text, "s")
    try:
        return float(number) * UNITS_SECONDS[unit]
    except ValueError as error:
        raise UsageError(f"a time is a number with s, m, h or d, like 4h, not {text!r}") from error
