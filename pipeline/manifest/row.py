"""One row's fields, checked and typed, as an Entry: what is wrong with a row is found here, not later."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from pipeline import json_schema
from pipeline.errors import ItemError
from pipeline.manifest import times
from pipeline.manifest.entry import SHOWN_PATHS, Entry, MediaRef, failed
from pipeline.manifest.paths import Confinement
from pipeline.manifest.rows import RawRow
from pipeline.records import Json, Rejected

KEY_CHARACTERS: Final = 4096
_WARNED_NAMES: Final = 1000
_NAME_CHARACTERS: Final = 100
_WHOLE: Final = times.Clip()
_MODEL: Final = re.compile(r"(?:models/|tunedModels/)?[A-Za-z0-9][A-Za-z0-9._@-]{0,199}")


class MediaField(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One medium given as an object."""

    path: str
    mime_type: str | None = None
    start: str | float | None = None
    end: str | float | None = None
    fps: float | None = None


class RowFields(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a row; null means absent."""

    key: str | int | None = None
    id: str | int | None = None
    media: str | MediaField | list[str | MediaField] | None = None
    prompt: str | None = None
    template: str | None = None
    system: str | None = None
    vars: dict[str, Json] | None = None
    model: str | None = None
    generation: dict[str, Json] | None = None
    schema: dict[str, Json] | None = None
    safety: dict[str, str] | None = None


KNOWN: Final = frozenset(RowFields.__struct_fields__)


class RowReader:
    """Turns raw rows into entries. ``warn`` is told once of each unknown name that is close to a known one."""

    def __init__(self, confinement: Confinement, *, most_files: int, warn: Callable[[str], None]) -> None:
        self._confinement = confinement
        self._most_files = most_files
        self._warn = warn
        self._familiar: set[str] = set(KNOWN)

    def entry(self, raw: RawRow, position: int) -> Entry | Rejected:
        """The row as an entry, or why it can't be one."""
        key = _own_key(raw.fields)
        fields: RowFields | None = None
        try:
            if raw.problem is not None:
                raise failed("bad_row", raw.problem)
            fields = _typed(raw.fields)
            return self._entry(fields, raw, position, key)
        except ItemError as error:
            failure = msgspec.structs.replace(error.failure, message=f"line {raw.line}: {error.failure.message}")
            return Rejected(
                key=key or _first_path(raw.fields) or f"line:{raw.line}",
                position=position,
                line=raw.line,
                failure=failure,
                paths=_given_paths(fields),
                model=fields.model if fields else None,
                template=fields.template if fields else None,
            )

    def _entry(self, fields: RowFields, raw: RawRow, position: int, key: str | None) -> Entry:
        _check(fields)
        row = raw.fields
        variables = {name: row[name] for name in row.keys() - KNOWN if row[name] is not None}
        if not self._familiar.issuperset(variables):
            self._look_at_names(variables)
        if fields.key is not None and fields.id is not None:
            variables["id"] = fields.id
        media = self._media(fields)
        first = media[0].path if media else None
        return Entry(
            key=key or first or f"line:{raw.line}",
            position=position,
            line=raw.line,
            path=first,
            media=media,
            prompt=fields.prompt,
            template=fields.template,
            system=fields.system,
            variables=variables | fields.vars if fields.vars else variables,
            model=fields.model,
            generation=fields.generation or {},
            safety=fields.safety or {},
            schema=fields.schema,
        )

    def _media(self, fields: RowFields) -> tuple[MediaRef, ...]:
        found: list[MediaRef] = []
        for medium in _as_list(fields.media):
            if isinstance(medium, str):
                given, mime_type, clip = medium, None, _WHOLE
            else:
                given, mime_type = medium.path, medium.mime_type
                clip = times.clip(medium.start, medium.end, medium.fps)
            for path, location in self._confinement.resolve(given):
                found.append(MediaRef(path=path, location=location, declared_type=mime_type, clip=clip))
                if len(found) > self._most_files:
                    raise failed("too_many_images", f"more than {self._most_files:,} media in one item")
        return tuple(found)

    def _look_at_names(self, names: dict[str, Json]) -> None:
        for name in names.keys() - self._familiar:
            if len(self._familiar) < _WARNED_NAMES and len(name) <= _NAME_CHARACTERS:
                import difflib

                self._familiar.add(name)
                if near := difflib.get_close_matches(name.lower(), KNOWN - {"id"}, n=1, cutoff=0.8):
                    self._warn(f"the manifest's {name!r} is taken as a template variable; is {near[0]!r} meant?")


def _own_key(row: dict[str, Json]) -> str | None:
    """The key that the row gives, even where the rest of it can't be used."""
    for name in ("key", "id"):
        value = row.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value) if _is_key(str(value)) else None
    return None


def _first_path(row: dict[str, Json]) -> str | None:
    """The first media path as the row gives it: the key of a row without one that can't be used."""
    media = None if row.get("key") is not None or row.get("id") is not None else row.get("media")
    first = media[0] if isinstance(media, list) and media else media
    path = first.get("path") if isinstance(first, dict) else first
    return path if isinstance(path, str) and _is_key(path) else None


def _is_key(text: str) -> bool:
    return 0 < len(text) <= KEY_CHARACTERS


def _typed(fields: dict[str, Json]) -> RowFields:
    try:
        return msgspec.convert(fields, RowFields)
    except msgspec.ValidationError as error:
        raise failed("bad_row", str(error).replace("`$.", "`")) from None


def _check(fields: RowFields) -> None:
    for name, value in (("key", fields.key), ("id", fields.id)):
        if value is not None and not _is_key(str(value)):
            raise failed("bad_row", f"{name} must have 1 to {KEY_CHARACTERS:,} characters")
    if fields.prompt is not None and fields.template is not None:
        raise failed("bad_row", "give prompt or template, not both")
    if fields.prompt is not None and not fields.prompt.strip():
        raise failed("bad_row", "the prompt is empty")
    if fields.model is not None and not _MODEL.fullmatch(fields.model):
        raise failed("bad_row", f"{fields.model[:100]!r} can't be the name of a model")
    if fields.schema is not None and (problem := _schema_problem(msgspec.json.encode(fields.schema))):
        raise failed("bad_row", f"the schema is not a valid JSON Schema: {problem}")


@lru_cache(maxsize=64)
def _schema_problem(encoded: bytes) -> str | None:
    """Checking one takes longer than reading a row, and most rows that have one have the same."""
    return json_schema.problem(msgspec.json.decode(encoded))


def _as_list(media: str | MediaField | list[str | MediaField] | None) -> list[str | MediaField]:
    return media if isinstance(media, list) else [] if media is None else [media]


def _given_paths(fields: RowFields | None) -> tuple[str, ...]:
    """The media as the row names them, for its failed line."""
    media = _as_list(fields.media)[:SHOWN_PATHS] if fields else []
    return tuple(medium if isinstance(medium, str) else medium.path for medium in media)
