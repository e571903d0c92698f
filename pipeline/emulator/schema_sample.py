"""Makes JSON that satisfies a schema; changes when the API takes another schema keyword.

The keywords are those of ``responseJsonSchema`` and of ``responseSchema`` (ai.google.dev/api/generate-content). The
sample depends on the schema and the seed alone.
"""

import hashlib
import math
from typing import Any

from pipeline.emulator.messages import Schema
from pipeline.emulator.pattern_sample import sample_pattern

MAX_DEPTH = 24
"""Optional members are left out below half of this, so that recursive schemas end."""
FORMATS = {
    "date-time": "2026-11-22T10:00:00Z",
    "date": "2026-11-22",
    "time": "10:00:00Z",
    "duration": "PT4S",
    "email": "emulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/emulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

JsonSchema = dict[str, Any]


class UnsatisfiableError(ValueError):
    """No value satisfies the schema, or none was found."""


def to_json_schema(schema: Schema) -> JsonSchema:
    """The API's OpenAPI subset as JSON Schema."""
    result: JsonSchema = {}
    if schema.type != "TYPE_UNSPECIFIED":
        result["type"] = schema.type.lower()
    if schema.items is not None:
        result["items"] = to_json_schema(schema.items)
    if schema.properties is not None:
        result["properties"] = {name: to_json_schema(inner) for name, inner in schema.properties.items()}
    if schema.any_of is not None:
        result["anyOf"] = [to_json_schema(inner) for inner in schema.any_of]
    for name, keyword in _PLAIN_KEYWORDS.items():
        value = getattr(schema, name)
        if value is not None:
            result[keyword] = value
    return result


_PLAIN_KEYWORDS = {
    "format": "format",
    "title": "title",
    "enum": "enum",
    "min_items": "minItems",
    "max_items": "maxItems",
    "minimum": "minimum",
    "maximum": "maximum",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
    "required": "required",
    "property_ordering": "propertyOrdering",
}


def sample(schema: Any, seed: str = "") -> Any:
    """A value that satisfies ``schema``."""
    return _Sampler(schema, seed).value(schema, "emulated", 0)


class _Sampler:
    def __init__(self, root: Any, seed: str) -> None:
        self._root = root
        self._seed = seed

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """A value for the member called ``name``."""
        if schema is True or schema is None or schema == {}:
            return f"[emulated] {name}"
        if not isinstance(schema, dict):
            raise UnsatisfiableError(f"{name}: no value satisfies the schema {schema!r}")
        if depth > MAX_DEPTH:
            raise UnsatisfiableError(f"{name}: the schema is nested too deeply")
        if "$ref" in schema:
            rest = {key: item for key, item in schema.items() if key != "$ref"}
            return self.value({**self._resolve(schema["$ref"]), **rest}, name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._pick(name, len(schema["enum"]))]
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                return self._alternative(schema, keyword, name, depth)
        return self._typed(schema, name, depth)

    def _typed(self, schema: JsonSchema, name: str, depth: int) -> Any:
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in {"integer", "number"}:
            return _number(schema, self._pick(name, 10), whole=kind == "integer")
        if kind == "boolean":
            return self._pick(name, 2) == 0
        return None if kind == "null" else _text(schema, name)

    def _alternative(self, schema: JsonSchema, keyword: str, name: str, depth: int) -> Any:
        rest = {key: item for key, item in schema.items() if key != keyword}
        problem: UnsatisfiableError | None = None
        # "null" comes last: an answer with something in it is of more use.
        for choice in sorted(schema[keyword], key=lambda item: isinstance(item, dict) and item.get("type") == "null"):
            merged = {**rest, **choice} if isinstance(choice, dict) else choice
            if "properties" in rest and isinstance(choice, dict):
                merged["properties"] = {**rest["properties"], **choice.get("properties", {})}
                merged["required"] = [*rest.get("required", []), *choice.get("required", [])]
            try:
                return self.value(merged, name, depth + 1)
            except UnsatisfiableError as failed:
                problem = failed
        raise problem or UnsatisfiableError(f"{name}: {keyword} is empty")

    def _object(self, schema: JsonSchema, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        result: dict[str, Any] = {}
        order = schema.get("propertyOrdering") or properties
        for name in dict.fromkeys([*order, *properties, *required]):
            inner = properties.get(name, schema.get("additionalProperties", True))
            if name in required:
                result[name] = self.value(inner, name, depth + 1)
            elif name in properties and depth < MAX_DEPTH // 2:
                try:
                    result[name] = self.value(inner, name, depth + 1)
                except UnsatisfiableError:
                    continue  # optional, so it may be missing
        return result

    def _array(self, schema: JsonSchema, name: str, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        low, high = int(schema.get("minItems", 0)), int(schema.get("maxItems", 2**31))
        if low > high:
            raise UnsatisfiableError(f"{name}: minItems exceeds maxItems")
        items = schema.get("items", True)
        wanted = max(low, len(prefix) or (0 if items is False or depth >= MAX_DEPTH // 2 else 1))
        result = [self.value(inner, f"{name}{index}", depth + 1) for index, inner in enumerate(prefix[:high])]
        more = range(len(result), min(wanted, high))
        return [*result, *(self.value(items, f"{name}{index}", depth + 1) for index in more)]

    def _resolve(self, reference: str) -> JsonSchema:
        node: Any = self._root
        if reference.startswith("#/"):
            for step in reference[2:].split("/"):
                node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        elif reference != "#":
            node = None
        if not isinstance(node, dict):
            raise UnsatisfiableError(f"{reference} is not in the schema")
        return node

    def _pick(self, name: str, count: int) -> int:
        digest = hashlib.blake2b(f"{self._seed}\0{name}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) % count


def _kind(schema: JsonSchema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((item for item in kind if item != "null"), "null")
    if kind:
        return str(kind).lower()
    hints = {"properties": "object", "items": "array", "prefixItems": "array", "minimum": "number", "maximum": "number"}
    return next((hints[keyword] for keyword in hints if keyword in schema), "string")


def _number(schema: JsonSchema, pick: int, *, whole: bool) -> float:
    low = schema.get("minimum", -math.inf)
    high = schema.get("maximum", math.inf)
    if "exclusiveMinimum" in schema:
        low = max(low, schema["exclusiveMinimum"] + (1 if whole else 1e-6))
    if "exclusiveMaximum" in schema:
        high = min(high, schema["exclusiveMaximum"] - (1 if whole else 1e-6))
    if whole:
        low = math.ceil(low) if math.isfinite(low) else low
        high = math.floor(high) if math.isfinite(high) else high
    if low > high:
        raise UnsatisfiableError(f"no number lies between {low} and {high}")
    step = schema.get("multipleOf")
    if step:
        start = math.ceil(low / step) * step if math.isfinite(low) else (min(0, math.floor(high / step) * step))
        return int(start) if whole else float(start)
    value = min(max(pick, low), high)
    return int(value) if whole else float(value)


def _text(schema: JsonSchema, name: str) -> str:
    low, high = int(schema.get("minLength", 0)), int(schema.get("maxLength", 2**31))
    if low > high:
        raise UnsatisfiableError(f"{name}: minLength exceeds maxLength")
    if "pattern" in schema:
        return sample_pattern(schema["pattern"])
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    text = f"[emulated] {name}"
    return text[:high].ljust(low, ".")
