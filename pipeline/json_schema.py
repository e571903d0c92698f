"""JSON Schemas of the user's and of manifest rows: whether one can be used, and what breaks it; nothing is fetched."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.nesting import is_deep
from pipeline.plain_text import one_line
from pipeline.records import Json

_PATTERNS = frozenset({"pattern", "patternProperties"})
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def problem(schema: Mapping[str, Json]) -> str | None:
    """Why ``schema`` can't be used, in one sentence; None where it can."""
    import jsonschema  # lazily: most runs ask for no schema

    if is_deep(schema):
        return "it is nested too deeply"
    try:
        jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator).check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        return one_line(error.message)
    except Exception as error:  # noqa: BLE001 - whatever the library trips over is the schema's fault
        return one_line(f"{type(error).__name__}: {error}")
    return None if _names_parts(schema) else _outside_reference(schema)


def violation(data: Json, schema: Mapping[str, Json]) -> str | None:
    """The first thing in ``data`` that ``schema`` forbids, None where it conforms. Never raises."""
    try:
        found = next(_validator(schema).iter_errors(data), None)
    except Exception as error:  # noqa: BLE001 - a reference that leads nowhere, a pattern that is none, no end
        return one_line(f"the schema can't be applied: {type(error).__name__}: {error}")
    return one_line(f"{found.json_path}: {found.message}") if found else None


def has_patterns(schema: Json) -> bool:
    """Whether regular expressions may have to be applied: in doubt yes, where a property has such a name."""
    if isinstance(schema, dict) and not _PATTERNS.isdisjoint(schema):
        return True
    return any(map(has_patterns, _inside(schema)))


def _validator(schema: Mapping[str, Json]) -> Any:
    """By default the library would load what ``$ref`` names: any URL, any file of this machine."""
    import jsonschema
    from referencing import Registry

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, registry=Registry())


def _names_parts(schema: Json) -> bool:
    """Whether a part of it has an ``$id``, so that any reference may be to that."""
    if isinstance(schema, dict) and isinstance(schema.get("$id"), str):
        return True
    return any(map(_names_parts, _inside(schema)))


def _outside_reference(schema: Json) -> str | None:
    """A reference to anything that is not in the schema itself."""
    if isinstance(schema, dict):
        for name in _REFERENCES:
            if isinstance(target := schema.get(name), str) and not target.startswith("#"):
                return one_line(f"{name} {target!r} leads out of it, and nothing is fetched")
    return next((found for inner in _inside(schema) if (found := _outside_reference(inner))), None)


def _inside(value: Json) -> Iterable[Json]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
