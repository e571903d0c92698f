"""Builds a RunSpec out of the command line, a TOML file and the environment, in that order of precedence."""

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pipeline import json_schema
from pipeline.errors import UsageError
from pipeline.plain_text import printable
from pipeline.records import Json
from pipeline.settings import CommandLine, Config, EndpointSection, RunSection, read
from pipeline.spec import (
    DEFAULT_BASE_URL,
    DEFAULT_PROMPT,
    EndpointSpec,
    GenerationSpec,
    ItemDefaults,
    QuotaSpec,
    RunSpec,
    Selection,
    SourceSpec,
    StopSpec,
    UploadSpec,
)

KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
"""Where a key is looked for, first to last."""


_HOURS_AND_MINUTES = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def run_spec(line: CommandLine, environ: Mapping[str, str], now: datetime) -> RunSpec:
    """The RunSpec of a command line. ``now`` is aware, local time. Raises ``UsageError`` with one sentence."""
    check_working_directory()
    config, folder = read(line, environ)
    source = source_path(line.source)
    check_folder_options(line, source)
    output, is_default = output_path(line, config, folder, source)
    return RunSpec(
        output=output,
        output_is_default=is_default,
        source_name="-" if source is None else printable(str(source.resolve())),
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


def check_working_directory() -> None:
    """Relative paths start from it. Raises ``UsageError`` where it has been deleted."""
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(f"the working directory can't be found ({error.strerror}): cd to one that is there") from None


def source_path(source: str) -> Path | None:
    """SOURCE as a path, None for stdin. Raises ``UsageError`` where there is nothing."""
    if source == "-":
        return None
    if not source:
        raise UsageError("SOURCE is empty; for the working directory say .")
    path = Path(source)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        what = "SOURCE is a folder of media, a manifest file, or - for stdin"
        raise UsageError(f"there is no {source}: {what}") from None
    except OSError as error:
        raise UsageError(f"{source} can't be read: {error.strerror}") from None
    return path


FOLDER_OPTIONS = {
    "run.include": "--include",
    "run.exclude": "--exclude",
    "run.group": "--group",
}


def check_folder_options(line: CommandLine, source: Path | None) -> None:
    """An option that would choose fewer files must not be passed over in silence. Raises ``UsageError``."""
    given = [option for key, option in FOLDER_OPTIONS.items() if key in line.settings]
    if given and not (source and source.is_dir()):
        raise UsageError(f"{given[0]} is for a folder SOURCE, and this one is a manifest")


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
    try:
        sent = (run.model, run.system, generation.config, generation.safety, generation.schema)
        json.dumps(sent, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UsageError("the model, system instruction or generation settings hold bytes that are no UTF-8") from None
    except (TypeError, ValueError):
        raise UsageError("the generation settings hold a date or a number that JSON doesn't have (nan, inf)") from None
    return ItemDefaults(
        model=run.model.removeprefix("models/"),
        prompt=run.prompt if run.prompt is not None else DEFAULT_PROMPT,
        template=run.template,
        template_file=template_file(run.template, folder),
        system=run.system,
        generation=generation.config,
        safety=generation.safety,
        schema=schema(generation.schema, folder),
    )


def template_file(template: str | None, folder: Path) -> Path | None:
    """The file that ``template`` may mean, in the configuration's folder or here; what can't be looked at is none."""
    for path in (folder / template, Path(template)) if template else ():
        if os.path.isfile(path):  # noqa: PTH113 - it answers no where pathlib raises
            return path
    return None


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
        except ValueError as error:
            raise UsageError(f"the schema {path} is not a JSON object: {error}") from error
    if problem := json_schema.problem(given):
        raise UsageError(f"the schema is not a valid JSON Schema: {problem}")
    return given


def endpoint(section: EndpointSection, *, emulator: bool) -> EndpointSpec:
    """The endpoint; https, or plain http to this machine only. Raises ``UsageError``."""
    try:
        url = urlsplit(section.base_url)
        _ = url.port
    except ValueError as error:
        raise UsageError(f"the base URL {section.base_url!r} can't be read: {error}") from error
    if url.scheme not in ("http", "https") or not url.hostname or not section.base_url.isascii():
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
        if not _HOURS_AND_MINUTES.fullmatch(run.deadline):
            raise UsageError(f"the deadline is a local time like 06:30, not {run.deadline!r}")
        today = datetime.combine(now.date(), time.fromisoformat(run.deadline))
        # local time with that day's offset; in the night that an hour comes twice the next of the two counts
        shown = ((today + timedelta(days=day)).replace(fold=fold).astimezone() for day in (0, 1) for fold in (0, 1))
        moments.append(min(moment for moment in shown if moment > now))
    if run.max_time_seconds is not None:
        moments.append(now + timedelta(seconds=run.max_time_seconds))
    return min(moments, default=None)


def api_key(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The key, None where there is none; and a warning where two different ones are set."""
    gemini, google = (environ.get(name) for name in KEY_VARIABLES)
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
