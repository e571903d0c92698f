"""Fingerprints as they were released: a value that changes makes every user pay again for every such item."""

import base64
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.ledger.memory import MemoryLedger
from pipeline.manifest.fingerprint import fingerprint
from pipeline.records import FileIdentity, Media
from tests.rooms.night import Night

HERE = Path(__file__).parent
GOLDEN = [json.loads(line) for line in (HERE / "fingerprints.jsonl").read_bytes().split(b"\n") if line]
ROWS = [json.loads(line) for line in (HERE / "rows.jsonl").read_bytes().split(b"\n") if line]

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
MP4 = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"isom", 512, b"isom", b"mp42") + struct.pack(">I4s", 8, b"mdat")


def value(given: dict[str, Any]) -> str:
    """The fingerprint that this release computes."""
    media = [
        Media(
            path="any", location="/any", size_bytes=1,
            identity=FileIdentity(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4),
            sha256=medium["sha256"], mime_type=medium["mime_type"],
            start_seconds=medium.get("start"), end_seconds=medium.get("end"), fps=medium.get("fps"),
        )
        for medium in given["media"]
    ]  # fmt: skip
    return fingerprint(**given | {"media": media})


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden["about"])
def test_a_released_value_stays(golden: dict[str, Any]) -> None:
    """The same ingredients give the value of the first release. Lines may be added here, never changed."""
    assert value(golden["given"]) == golden["fingerprint"]


def test_every_ingredient_is_there_and_counts() -> None:
    """Lines that must agree do, all others differ, and no ingredient is left out."""
    same = Counter(golden["fingerprint"] for golden in GOLDEN)
    twins = {golden["about"] for golden in GOLDEN if same[golden["fingerprint"]] > 1}
    assert twins == {"one image", "model with models/", "several settings", "the settings in another order"}
    given = {name for golden in GOLDEN for name, content in golden["given"].items() if content}
    assert given == {"media", "prompt", "labels", "system", "model", "generation", "safety", "schema"}
    media = {name for golden in GOLDEN for medium in golden["given"]["media"] for name in medium}
    assert media == {"sha256", "mime_type", "start", "end", "fps"}


async def test_rows_keep_their_fingerprints(tmp_path: Path) -> None:
    """From row to fingerprint: no default, shipped template, label or reading of a field may change either."""
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG + b"b")
    (tmp_path / "clip.mp4").write_bytes(MP4)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row["row"]) + "\n" for row in ROWS))
    night = Night(MemoryLedger())
    await night.run(manifest)
    expected = {row["row"]["key"]: row["fingerprint"] for row in ROWS}
    assert {item.key: item.fingerprint for item in night.items} == expected
