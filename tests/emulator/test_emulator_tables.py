"""Token counts, quota windows and schema samples, in tables and in virtual time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.emulator import schema_sample, tokens
from pipeline.emulator.pattern_sample import sample_pattern
from pipeline.emulator.plan import Quota
from pipeline.emulator.quota import Quotas, seconds_to_midnight_pacific

NONE, LOW, MEDIUM, HIGH, ULTRA = (
    f"MEDIA_RESOLUTION_{level}" for level in ("UNSPECIFIED", "LOW", "MEDIUM", "HIGH", "ULTRA_HIGH")
)


@pytest.mark.parametrize(
    ("size", "family", "resolution", "count"),
    [
        ((384, 384), "2.5", NONE, 258),
        ((385, 384), "2.5", NONE, 4 * 258),
        ((960, 540), "2.5", NONE, 1548),
        ((1920, 1080), "2.5", NONE, 1548),
        ((1000, 1000), "2.5", NONE, 1032),
        (None, "2.5", LOW, 64),
        (None, "2.5", MEDIUM, 256),
        ((10, 10), "3", NONE, 1120),
        (None, "3", LOW, 280),
        (None, "3", MEDIUM, 560),
        (None, "3", HIGH, 1120),
        (None, "3", ULTRA, 2240),
    ],
)
def test_image_tokens_follow_the_documented_tables(size, family, resolution, count):
    """Tiles for the 2.5 family, the media resolution's table for 3.x; the sizes are the guide's own examples."""
    assert tokens.of_image(size, family, resolution) == count


@pytest.mark.parametrize(
    ("family", "resolution", "fps", "audio", "total"),
    [
        ("2.5", NONE, 1, True, 174_000),
        ("3", NONE, 1, True, 61_200),
        ("3", HIGH, 1, True, 187_200),
        ("3", LOW, 1, False, 42_000),
        ("3", NONE, 2, False, 84_000),
        ("2.5", LOW, 1, False, 39_600),
    ],
)
def test_ten_minutes_of_video_cost_what_the_guide_says(family, resolution, fps, audio, total):
    """Duration x (fps x frame + 32 for sound)."""
    counted = tokens.of_video(600, has_audio=audio, family=family, resolution=resolution, fps=fps)
    assert sum(counted) == total


def test_token_details_sum_by_modality_and_leave_zeros_out():
    """One entry a modality, in order of appearance."""
    details = tokens.details([("TEXT", 2), ("IMAGE", 5), ("AUDIO", 0), ("IMAGE", 5)])
    assert details == [{"modality": "TEXT", "tokenCount": 2}, {"modality": "IMAGE", "tokenCount": 10}]


NOON = datetime(2026, 11, 22, 20, 0, 0, tzinfo=UTC)


def admitted(quotas: Quotas, seconds: list[float], tokens_each: int = 1) -> list[bool]:
    return [quotas.admit("p", "m", tokens_each, NOON + timedelta(seconds=moment)) is None for moment in seconds]


@pytest.mark.parametrize(
    ("window", "burst", "moments", "verdicts"),
    [
        ("fixed", None, [58, 59, 59.5, 60, 61, 62], [True, True, False, True, True, False]),
        ("sliding", None, [0, 30, 59, 60, 61, 90], [True, True, False, True, False, True]),
        ("token_bucket", None, [0, 0, 0, 29, 30, 31], [True, True, False, False, True, False]),
        ("token_bucket", 1, [0, 0, 29, 30, 59, 60], [True, False, False, True, False, True]),
    ],
)
def test_windows_of_two_a_minute_open_when_they_should(window, burst, moments, verdicts):
    """Fixed minutes start on the minute, sliding ones a minute after use, a bucket refills evenly."""
    quotas = Quotas([Quota(requests_per_minute=2, window=window, burst=burst)])
    assert admitted(quotas, moments) == verdicts


@pytest.mark.parametrize("window", ["fixed", "sliding", "token_bucket"])
def test_the_delay_told_is_the_delay_that_works(window):
    """Asking again just before the told delay fails, and after it succeeds."""
    quotas = Quotas([Quota(requests_per_minute=3, window=window)])
    assert admitted(quotas, [10, 12, 14]) == [True, True, True]
    refused = quotas.admit("p", "m", 1, NOON + timedelta(seconds=15))
    assert refused is not None
    told = float(refused.payload["error"]["message"].rpartition("retry in ")[2].removesuffix("s."))
    assert 0 < told <= 60
    assert admitted(quotas, [15 + told - 0.01, 15 + told + 0.01]) == [False, True]


def test_input_tokens_are_a_limit_of_their_own():
    """Tokens a minute refuse a request whose prompt is too long, and name the token quota."""
    quotas = Quotas([Quota(input_tokens_per_minute=100, free_tier=True)])
    assert admitted(quotas, [0], 60) == [True]
    refused = quotas.admit("p", "m", 60, NOON)
    violation = refused.payload["error"]["details"][1]["violations"][0]
    assert violation["quotaId"] == "GenerateContentInputTokensPerModelPerMinute-FreeTier"
    assert violation["quotaMetric"].endswith("/generate_content_free_tier_input_token_count")
    assert violation["quotaValue"] == "100"
    assert admitted(quotas, [60], 60) == [True]


def test_days_end_at_midnight_pacific():
    """A day's requests come back at midnight in Los Angeles, not in Greenwich."""
    quotas = Quotas([Quota(requests_per_day=1)])
    assert admitted(quotas, [0, 1, 5 * 3600, 12 * 3600 - 1, 12 * 3600]) == [True, False, False, False, True]
    refused = quotas.admit("p", "m", 1, NOON + timedelta(hours=12, seconds=1))
    assert "PerDay" in refused.payload["error"]["details"][1]["violations"][0]["quotaId"]


def test_pacific_days_last_as_long_as_the_clock_change_makes_them():
    """23 hours in March, 25 in November."""
    assert seconds_to_midnight_pacific(datetime(2026, 3, 8, 8, 0, tzinfo=UTC)) == 23 * 3600
    assert seconds_to_midnight_pacific(datetime(2026, 11, 1, 7, 0, tzinfo=UTC)) == 25 * 3600


def test_quotas_are_per_project_and_model():
    """Another key and another model have limits of their own; a model without a quota has none."""
    quotas = Quotas([Quota(model="m", requests_per_minute=1)])
    verdicts = [quotas.admit(*who, 1, NOON) is None for who in [("p", "m"), ("p", "m"), ("q", "m"), ("p", "n")]]
    assert verdicts == [True, False, True, True]


@pytest.mark.parametrize(
    ("switches", "kinds"),
    [
        ({}, ["Help", "QuotaFailure", "RetryInfo"]),
        ({"with_retry_info": False}, ["Help", "QuotaFailure"]),
        ({"with_details": False}, []),
    ],
)
def test_parts_of_a_quota_error_can_be_left_out(switches, kinds):
    """The service leaves details out at times, and so can a plan."""
    quotas = Quotas([Quota(requests_per_minute=0, **switches)])
    error = quotas.admit("p", "m", 1, NOON).payload["error"]
    assert [detail["@type"].rpartition(".")[2] for detail in error.get("details", [])] == kinds


def test_quota_value_can_be_left_out():
    """with_quota_value = false drops quotaValue alone."""
    quotas = Quotas([Quota(requests_per_minute=0, with_quota_value=False)])
    violation = quotas.admit("p", "m", 1, NOON).payload["error"]["details"][1]["violations"][0]
    assert "quotaValue" not in violation
    assert violation["quotaId"] == "GenerateRequestsPerMinutePerProjectPerModel"


def satisfies(value, schema, root) -> bool:
    """A small independent validator of the keywords under test."""
    if "$ref" in schema:
        node = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            node = node[step]
        return satisfies(value, node, root)
    if "anyOf" in schema and not any(satisfies(value, inner, root) for inner in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    types = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(value is None if kind == "null" else isinstance(value, types[kind]) for kind in kinds):
        return False
    if isinstance(value, dict):
        return all(name in value for name in schema.get("required", [])) and all(
            satisfies(value[name], inner, root) for name, inner in schema.get("properties", {}).items() if name in value
        )
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        rest = schema.get("items", True)
        return (
            schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 99)
            and all(satisfies(item, inner, root) for item, inner in zip(value, prefix, strict=False))
            and (not isinstance(rest, dict) or all(satisfies(item, rest, root) for item in value[len(prefix) :]))
        )
    if isinstance(value, str):
        return schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 9999)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    return True


NODE = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/node"}, "id": {"type": "integer"}},
    "required": ["id"],
}
SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "null"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "integer", "minimum": 5, "maximum": 5}, "minItems": 3, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "items": False},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"type": "string", "enum": ["cat", "dog"]},
    {"type": "string", "minLength": 40},
    {"type": "string", "maxLength": 3},
    {"type": "number", "minimum": 0.1, "maximum": 0.2},
    {"type": "integer", "minimum": -9, "maximum": -8},
    {"type": ["string", "null"]},
    {"anyOf": [{"type": "null"}, {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}]},
    {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    {
        "type": "object",
        "properties": {"list": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "$defs": {"node": NODE},
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_samples_satisfy_their_schema_and_repeat(schema):
    """Every keyword that the API takes is honoured, and the same schema and seed give the same sample."""
    value = schema_sample.sample(schema, "seed")
    assert satisfies(value, schema, schema)
    assert schema_sample.sample(schema, "seed") == value


scalars = st.one_of(
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-99, 99),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, *[st.integers(0, 30)] * 2
    ),
    st.builds(lambda names: {"type": "string", "enum": names}, st.lists(st.text(max_size=5), min_size=1, max_size=3)),
    st.just({"type": "boolean"}),
)
any_schema = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(
            lambda item, low, more: {"type": "array", "items": item, "minItems": low, "maxItems": low + more},
            inner,
            *[st.integers(0, 4)] * 2,
        ),
        st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda members: {"type": "object", "properties": members, "required": list(members)},
            st.dictionaries(st.text(max_size=5), inner, max_size=4),
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, database=None)
@given(any_schema)
def test_samples_satisfy_any_schema(schema):
    """Nested at random, samples still satisfy."""
    assert satisfies(schema_sample.sample(schema, "seed"), schema, schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "object", "required": ["x"], "properties": {"x": False}},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    ],
)
def test_impossible_schemas_are_said_to_be(schema):
    """Where nothing satisfies, that is an error, never a wrong sample or an endless search."""
    with pytest.raises(schema_sample.UnsatisfiableError):
        schema_sample.sample(schema)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^\d{2}:\d{2}$", "00:00"),
        (r"^[A-Z]{3}-[0-9]+$", "AAA-0"),
        (r"^(cat|dog)s?$", "cat"),
        (r"[^a-c]x", "dx"),
        (r"^.{2}$", "xx"),
    ],
)
def test_patterns_get_the_shortest_match(pattern, text):
    """The expressions that schemas carry are matched by a simple string."""
    assert sample_pattern(pattern) == text
