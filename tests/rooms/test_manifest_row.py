"""One row's fields, checked and typed."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.manifest.entry import Entry
from pipeline.manifest.paths import Confinement
from pipeline.manifest.row import RowReader
from pipeline.manifest.rows import RawRow
from pipeline.manifest.times import Clip
from pipeline.records import Rejected


def read(fields: dict[str, Any], warnings: list[str] | None = None) -> Entry | Rejected:
    rows = RowReader(Confinement(Path(), (), most_files=10), most_files=10, warn=(warnings or []).append)
    return rows.entry(RawRow(line=7, fields=fields), 3)


def good(fields: dict[str, Any]) -> Entry:
    entry = read(fields)
    assert isinstance(entry, Entry), entry
    return entry


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"key": "a", "media": "x.jpg"}, "a"),
        ({"id": "b", "media": "x.jpg"}, "b"),
        ({"id": 17}, "17"),
        ({"key": "a", "id": "b"}, "a"),
        ({"key": None, "id": "b"}, "b"),
        ({"media": "x.jpg"}, "x.jpg"),
        ({"media": ["y.jpg", "x.jpg"]}, "y.jpg"),
        ({"media": {"path": "z.mp4"}}, "z.mp4"),
        ({"media": "sample_manifests/media/coffee.*g"}, "sample_manifests/media/coffee.jpg"),
        ({"prompt": "x"}, "line:7"),
        ({"media": []}, "line:7"),
        ({}, "line:7"),
    ],
)
def test_keys(fields: dict[str, Any], key: str) -> None:
    """A row's key is its own, else its first media path, else its line."""
    assert good(fields).key == key


@pytest.mark.parametrize(
    ("fields", "kind", "key"),
    [
        ({"key": ""}, "bad_row", "line:7"),
        ({"key": "k" * 5000}, "bad_row", "line:7"),
        ({"key": True, "media": "x.jpg"}, "bad_row", "line:7"),
        ({"key": 1.5}, "bad_row", "line:7"),
        ({"key": ["a"]}, "bad_row", "line:7"),
        ({"key": "a", "media": 5}, "bad_row", "a"),
        ({"key": "a", "media": [None]}, "bad_row", "a"),
        ({"key": "a", "media": [["x.jpg"]]}, "bad_row", "a"),
        ({"key": "a", "media": ""}, "bad_row", "a"),
        ({"key": "a", "media": "x\0.jpg"}, "bad_row", "a"),
        ({"key": "a", "media": {"path": "x", "typo": 1}}, "bad_row", "a"),
        ({"key": "a", "media": {"start": "1"}}, "bad_row", "a"),
        ({"key": "a", "prompt": 5}, "bad_row", "a"),
        ({"key": "a", "prompt": " "}, "bad_row", "a"),
        ({"key": "a", "prompt": "x", "template": "ocr"}, "bad_row", "a"),
        ({"key": "a", "vars": []}, "bad_row", "a"),
        ({"key": "a", "schema": "object"}, "bad_row", "a"),
        ({"key": "a", "safety": {"H": 1}}, "bad_row", "a"),
        ({"key": "a", "model": "../files"}, "bad_row", "a"),
        ({"key": "a", "model": ""}, "bad_row", "a"),
        ({"key": "a", "model": "m:generateContent?key=x"}, "bad_row", "a"),
        ({"media": "../x.jpg"}, "outside_root", "../x.jpg"),
        ({"media": ["https://x/y.jpg"]}, "unsupported_source", "https://x/y.jpg"),
        ({"key": "a", "media": ["x.jpg"] * 11}, "too_many_images", "a"),
        ({"key": "a", "media": {"path": "x.mp4", "start": 2, "end": 1}}, "bad_clip", "a"),
    ],
)
def test_bad_rows(fields: dict[str, Any], kind: str, key: str) -> None:
    """Each becomes one failed line that names its line number, under its own key where that can be read."""
    row = read(fields)
    assert isinstance(row, Rejected)
    assert (row.failure.kind, row.key, row.line, row.position) == (kind, key, 7, 3)
    assert row.failure.message.startswith("line 7: ")
    assert row.failure.stage == "manifest"


def test_every_field_arrives() -> None:
    """All fields of the contract reach the entry."""
    entry = good(
        {
            "key": "a",
            "media": ["x.jpg", {"path": "v.mp4", "mime_type": "video/mpg", "start": "00:01", "end": 2, "fps": 3}],
            "template": "ocr",
            "system": "s",
            "vars": {"n": 1, "color": "blue"},
            "color": "red",
            "size": None,
            "model": "models/m",
            "generation": {"seed": 1},
            "schema": {"type": "object"},
            "safety": {"H": "OFF"},
        }
    )
    assert [(ref.path, ref.declared_type, ref.clip) for ref in entry.media] == [
        ("x.jpg", None, Clip()),
        ("v.mp4", "video/mpg", Clip(start_seconds=1.0, end_seconds=2.0, fps=3.0)),
    ]
    assert (entry.template, entry.system, entry.model) == ("ocr", "s", "models/m")
    assert entry.variables == {"n": 1, "color": "blue"}
    assert (entry.generation, entry.schema, entry.safety) == ({"seed": 1}, {"type": "object"}, {"H": "OFF"})
    assert entry.path == "x.jpg"


def test_a_name_close_to_a_known_one_warns_once() -> None:
    """A typing error in a column is told of once, whatever the number of rows."""
    warnings: list[str] = []
    rows = RowReader(Confinement(Path(), (), most_files=10), most_files=10, warn=warnings.append)
    for _ in range(3):
        rows.entry(RawRow(line=1, fields={"promt": "x", "Media": "y", "color": "red"}), 0)
    assert sorted(warnings) == [
        "the manifest's 'Media' is taken as a template variable; is 'media' meant?",
        "the manifest's 'promt' is taken as a template variable; is 'prompt' meant?",
    ]


def test_endless_new_names_are_not_all_remembered() -> None:
    """Rows that each bring new names don't fill the memory."""
    rows = RowReader(Confinement(Path(), (), most_files=10), most_files=10, warn=lambda _: None)
    for n in range(3000):
        rows.entry(RawRow(line=1, fields={f"column {n}": 1}), 0)
    assert len(rows._familiar) <= 1000


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["key", "id", "media", "prompt", "template", "system", "vars", "model", "generation", "schema", "safety", "x"]
)


@given(st.dictionaries(NAMES, ANY | st.fixed_dictionaries({"path": ANY, "start": ANY}), max_size=6))
def test_no_row_crashes(fields: dict[str, Any]) -> None:
    """Any JSON object is an entry or a failed line, and has a key."""
    assert read(fields).key
