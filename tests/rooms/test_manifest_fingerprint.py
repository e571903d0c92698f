"""The fingerprint decides who pays again: its values may never change."""

import hashlib
from typing import Any

import msgspec
import pytest

from pipeline.manifest.fingerprint import fingerprint, media_sha256, prompt_sha256
from pipeline.records import FileIdentity, Media

IDENTITY = FileIdentity(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4)
IMAGE = Media(path="a.jpg", location="/a.jpg", mime_type="image/jpeg", size_bytes=1, sha256="a" * 64, identity=IDENTITY)
VIDEO = msgspec.structs.replace(IMAGE, path="v.mp4", mime_type="video/mp4", sha256="b" * 64)
BASE: dict[str, Any] = {"media": [IMAGE], "prompt": "Hi", "model": "m", "generation": {}, "safety": {}}


@pytest.mark.parametrize(
    ("changes", "payload"),
    [
        ({}, '[[["%s","image/jpeg",null,null,null,null]],"Hi",[],null,"m",{},{},null]' % ("a" * 64)),
        ({"media": []}, '[[],"Hi",[],null,"m",{},{},null]'),
        (
            {
                "media": [msgspec.structs.replace(VIDEO, start_seconds=1, end_seconds=2.5, fps=4)],
                "prompt": "Ünï",
                "labels": ["Image 1:"],
                "system": "s",
                "model": "models/m",
                "generation": {"b": 1, "a": {"d": [1], "c": 0.5}},
                "safety": {"H": "BLOCK_NONE"},
                "schema": {"type": "object"},
            },
            '[[["%s","video/mp4",1.0,2.5,4.0,null]],"Ünï",["Image 1:"],"s","m",{"a":{"c":0.5,"d":[1]},"b":1},'
            '{"H":"BLOCK_NONE"},{"type":"object"}]' % ("b" * 64),
        ),
    ],
)
def test_the_canonical_form(changes: dict[str, Any], payload: str) -> None:
    """The hash is over exactly this text, written out here without the program's encoder."""
    assert fingerprint(**BASE | changes) == "v1:" + hashlib.sha256(payload.encode()).hexdigest()


def test_golden_value() -> None:
    """One value as it was first released."""
    assert fingerprint(**BASE) == "v1:5ec9511689a0523ef7ad9d1f98e573ed123bb5464def8c2cb9596b550d0eedea"


@pytest.mark.parametrize(
    "changes",
    [
        {"media": []},
        {"media": [VIDEO]},
        {"media": [IMAGE, VIDEO]},
        {"media": [msgspec.structs.replace(IMAGE, fps=1.0)]},
        {"media": [msgspec.structs.replace(IMAGE, start_seconds=1.0)]},
        {"media": [msgspec.structs.replace(IMAGE, end_seconds=1.0)]},
        {"media": [msgspec.structs.replace(IMAGE, mime_type="image/png")]},
        {"prompt": "Hi "},
        {"labels": ["Image 1:"]},
        {"system": ""},
        {"model": "m2"},
        {"generation": {"seed": 1}},
        {"safety": {"seed": "1"}},
        {"schema": {}},
    ],
)
def test_what_counts(changes: dict[str, Any]) -> None:
    """Everything that the answer depends on changes the fingerprint."""
    assert fingerprint(**BASE | changes) != fingerprint(**BASE)


def test_what_does_not_count() -> None:
    """Paths, time stamps, the order of keys and ``models/`` change nothing."""
    moved = msgspec.structs.replace(
        IMAGE, path="z.jpg", location="/z", identity=msgspec.structs.replace(IDENTITY, inode=9)
    )
    assert fingerprint(**BASE | {"media": [moved], "model": "models/m"}) == fingerprint(**BASE)
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert fingerprint(**BASE | {"generation": one}) == fingerprint(**BASE | {"generation": other})


def test_the_order_of_media_counts() -> None:
    """A series the other way round is another question."""
    assert fingerprint(**BASE | {"media": [IMAGE, VIDEO]}) != fingerprint(**BASE | {"media": [VIDEO, IMAGE]})
    assert media_sha256([IMAGE, VIDEO]) != media_sha256([VIDEO, IMAGE])


def test_helper_hashes() -> None:
    """The media's joint hash and the prompt's are plain SHA-256 values; a single medium has its own."""
    assert media_sha256([IMAGE]) == "a" * 64
    assert media_sha256([]) == hashlib.sha256(b"").hexdigest()
    assert media_sha256([IMAGE, VIDEO]) == hashlib.sha256(("a" * 64 + "\n" + "b" * 64).encode()).hexdigest()
    assert prompt_sha256("Hi") == hashlib.sha256(b"Hi").hexdigest()
