"""The manifest room at work, with the ledger in memory: what is sent, and what is not."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from pipeline.clock import SystemClock
from pipeline.events import SourceRead, Warned
from pipeline.ledger.api import Intent
from pipeline.ledger.memory import MemoryLedger
from pipeline.limits import Limits
from pipeline.records import Rejected
from tests.rooms.night import SAMPLES, Night, write


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
async def test_the_quickstart(suffix: str) -> None:
    """Every row of both quickstart manifests is an item, alike in both."""
    night, other = Night(MemoryLedger()), Night(MemoryLedger())
    room = await night.run(SAMPLES / f"quickstart.{suffix}")
    await other.run(SAMPLES / "quickstart.jsonl")
    assert (night.outcomes, room.total, room.usable, room.sent) == ([], 13, 13, 13)
    assert room.read_to_end
    assert SourceRead(total=13, skipped={}) in night.events
    assert {i.key: i.fingerprint for i in night.items} == {i.key: i.fingerprint for i in other.items}
    types = {medium.mime_type for item in night.items for medium in item.media}
    assert types == {"image/png", "image/jpeg", "image/webp", "image/heic", "video/mp4", "video/webm"}
    compare = next(item for item in night.items if item.key == "coffee-formats")
    assert compare.labels == ("Image 1:", "Image 2:", "Image 3:")


@pytest.mark.parametrize("name", ["series", "video"])
async def test_the_other_samples(name: str) -> None:
    """Series and clips all become items."""
    night = Night(MemoryLedger())
    room = await night.run(SAMPLES / f"{name}.jsonl")
    assert night.outcomes == []
    assert room.sent == room.total >= 4


async def test_the_edge_cases() -> None:
    """Each row of edge_cases.jsonl ends as its key says."""
    night = Night(MemoryLedger())
    await night.run(SAMPLES / "edge_cases.jsonl")
    for item in night.items:
        assert item.key.startswith("ok:") or item.key in {"media/rocket.jpg", "line:3", "duplicate_key"}, item.key
    for key, kind in night.failures.items():
        named = key.split(":")[0].split("#")[0]
        assert kind == ("bad_row" if named == "line" else named), key
    assert set(night.failures.values()) == {
        "bad_row", "duplicate_key", "missing_file", "not_a_file", "outside_root", "unsupported_type",
        "unsupported_source", "too_many_videos", "bad_clip", "template_error",
    }  # fmt: skip
    literal = next(item for item in night.items if "literal" in item.key)
    assert (literal.prompt, literal.template) == ("Is {{ 7 * 7 }} written in this image? Answer yes or no.", None)


async def test_a_second_night_sends_nothing(media: Path) -> None:
    """What is done is unchanged, what failed stays failed, whatever the order, and no line is written again."""
    good = [{"key": f"k{n}", "media": "coffee.jpg", "vars": {"n": n}} for n in range(600)]
    bad = {"key": "bad", "media": "nowhere.jpg"}
    ledger = MemoryLedger()
    first = Night(ledger)
    await first.run(write(media / "m.jsonl", *good, bad), prompt="Number {{ n }}")
    assert first.decisions == {"send": 600, "rejected": 1}
    await first.commit()
    second = Night(ledger)
    os.utime(media / "coffee.jpg")
    room = await second.run(write(media / "m.jsonl", bad, *reversed(good)), prompt="Number {{ n }}")
    assert second.decisions == {"unchanged": 600, "failed_before": 1}
    assert (second.items, second.outcomes, room.total, room.usable) == ([], [], 601, 600)


async def test_a_changed_file_is_sent_again(media: Path) -> None:
    """Other bytes under the same name are another question."""
    ledger = MemoryLedger()
    manifest = write(media / "m.jsonl", {"media": "coffee.jpg"}, {"media": "rocket.jpg"})
    first = Night(ledger)
    await first.run(manifest)
    await first.commit()
    shutil.copy(media / "rocket.jpg", media / "coffee.jpg")
    second = Night(ledger)
    await second.run(manifest)
    assert [item.key for item in second.items] == ["coffee.jpg"]


async def test_hashes_are_remembered(media: Path) -> None:
    """A file that has not changed is hashed by the first night only."""
    os.utime(media / "coffee.jpg", (1_000_000_000, 1_000_000_000))
    ledger = MemoryLedger()
    await Night(ledger).run(write(media / "m.jsonl", {"media": "coffee.jpg"}))
    location = os.path.realpath(media / "coffee.jpg")
    identity, mime_type, _ = ledger.known([location])[location]
    await ledger.remember_identities([(location, identity, mime_type, "remembered")])
    second = Night(ledger)
    await second.run(media / "m.jsonl")
    assert second.items[0].media[0].sha256 == "remembered"


async def test_on_change(media: Path) -> None:
    """A changed prompt runs again, is kept, or stops the run before anything is sent, with the count."""
    ledger = MemoryLedger()
    manifest = write(media / "m.jsonl", {"media": "coffee.jpg"}, {"media": "rocket.jpg"})
    first = Night(ledger)
    await first.run(manifest)
    await first.commit()
    write(manifest, {"media": "coffee.jpg"}, {"media": "rocket.jpg"}, {"media": "coffee_zoom.mp4"})
    kept = Night(ledger)
    await kept.run(manifest, prompt="Other", on_change="keep")
    assert kept.decisions == {"kept": 2, "send": 1}
    stopped = Night(ledger)
    await stopped.run(manifest, prompt="Other", on_change="stop")
    assert (stopped.items, stopped.outcomes) == ([], [])
    assert str(stopped.stop).startswith("2 done items")
    same = Night(ledger)
    await same.run(manifest, on_change="stop")
    assert same.decisions == {"unchanged": 2, "send": 1}
    again = Night(ledger)
    await again.run(manifest, prompt="Other")
    assert again.decisions == {"send": 3}


async def test_limit(media: Path) -> None:
    """The first N that would be sent, in order; done ones don't count, and reading stops."""
    rows = [{"key": f"k{n}", "media": "coffee.jpg"} for n in range(1000)]
    ledger = MemoryLedger()
    manifest = write(media / "m.jsonl", *rows)
    first = Night(ledger)
    room = await first.run(manifest, limit=3)
    assert [item.key for item in first.items] == ["k0", "k1", "k2"]
    assert not room.read_to_end
    assert room.total == 3
    await first.commit()
    second = Night(ledger)
    await second.run(manifest, limit=2)
    assert [item.key for item in second.items] == ["k3", "k4"]
    assert second.decisions["unchanged"] == 3


async def test_duplicate_keys(media: Path) -> None:
    """The first row keeps the key, however hostile the later ones' own keys are, and again the next night."""
    rows = [
        {"key": "a", "media": "coffee.jpg"},
        {"key": "a#line:3", "media": "coffee.jpg"},
        {"key": "a", "media": "rocket.jpg"},
        {"key": "a", "media": "nowhere.jpg"},
    ]
    ledger = MemoryLedger()
    first = Night(ledger)
    await first.run(write(media / "m.jsonl", *rows))
    assert [item.key for item in first.items] == ["a", "a#line:3"]
    assert first.failures == {"a#line:3#line:3": "duplicate_key", "a#line:4": "duplicate_key"}
    await first.commit()
    second = Night(ledger)
    await second.run(media / "m.jsonl")
    assert second.decisions == {"unchanged": 2, "failed_before": 2}


async def test_in_doubt_is_held(media: Path) -> None:
    """An item whose call a killed run left open gets a failed line where the user says hold."""
    ledger = MemoryLedger()
    manifest = write(media / "m.jsonl", {"key": "a", "media": "coffee.jpg"})
    await ledger.intend(Intent(key="a", attempt=1, started_at=SystemClock().now()))
    held = Night(ledger)
    await held.run(manifest, in_doubt="hold")
    assert held.failures == {"a": "in_doubt"}
    sent = Night(ledger)
    await sent.run(manifest)
    assert [item.key for item in sent.items] == ["a"]


async def test_a_folder(media: Path) -> None:
    """Files become items without a line; what is no medium is counted; a broken one fails."""
    (media / "notes.txt").write_text("x")
    (media / "broken.png").write_bytes(b"no image")
    (media / "empty.jpg").write_bytes(b"")
    night = Night(MemoryLedger())
    room = await night.run(media)
    assert [(item.key, item.line) for item in night.items] == [
        ("coffee.jpg", None), ("coffee_zoom.mp4", None), ("rocket.jpg", None)
    ]  # fmt: skip
    assert night.failures == {"broken.png": "unsupported_type", "empty.jpg": "empty_file"}
    assert room.skipped == {".txt": 1}
    assert SourceRead(total=5, skipped={".txt": 1}) in night.events


async def test_a_growing_folder_on_change_stop(media: Path) -> None:
    """The pass that counts changes and the pass that sends may see other positions; no key becomes a duplicate."""
    ledger = MemoryLedger()
    night = Night(ledger)
    ledger._seen.update({"rocket.jpg": 99})
    night.ledger.next_run = lambda: None  # type: ignore[method-assign]
    await night.run(media)
    assert night.failures == {}
    assert len(night.items) == 3


async def test_a_warning_is_told_once_though_the_manifest_is_read_twice(media: Path) -> None:
    """As ``on_change="stop"`` does."""
    night = Night(MemoryLedger())
    await night.run(write(media / "m.jsonl", {"key": "a", "promt": "x"}), on_change="stop")
    assert len([event for event in night.events if isinstance(event, Warned)]) == 1


async def test_settings_are_merged(media: Path) -> None:
    """A row's generation goes over the run's key by key, and null takes a key away."""
    night = Night(MemoryLedger())
    await night.run(
        write(
            media / "m.jsonl", {"key": "a", "generation": {"seed": 2, "topK": None}, "prompt": "x", "model": "models/m"}
        ),
        generation={"seed": 1, "topK": 3, "temperature": 0.5},
    )
    assert night.items[0].generation == {"seed": 2, "temperature": 0.5}
    assert night.items[0].model == "m"


async def test_counts_per_item(media: Path) -> None:
    """Too many images or videos fail alone; more than one video warns once."""
    night = Night(MemoryLedger())
    await night.run(
        write(
            media / "m.jsonl",
            {"key": "images", "media": ["coffee.jpg"] * 3},
            {"key": "videos", "media": ["coffee_zoom.mp4"] * 3},
            {"key": "fine", "media": ["coffee.jpg", "coffee.jpg", "coffee_zoom.mp4", "coffee_zoom.mp4"]},
            {"key": "fine too", "media": ["coffee_zoom.mp4"] * 2},
        ),
        limits=Limits(max_images=2, max_videos=2),
    )
    assert night.failures == {"images": "too_many_images", "videos": "too_many_videos"}
    assert [item.key for item in night.items] == ["fine", "fine too"]
    assert len([event for event in night.events if isinstance(event, Warned)]) == 1


async def test_a_failed_line_shows_the_media(media: Path) -> None:
    """Media identified before the failure are told with their hashes, the others by path."""
    night = Night(MemoryLedger())
    await night.run(write(media / "m.jsonl", {"key": "a", "media": ["coffee.jpg", "nowhere.jpg", "rocket.jpg"]}))
    subject = night.outcomes[0].subject
    assert isinstance(subject, Rejected)
    assert [medium.path for medium in subject.media] == ["coffee.jpg"]
    assert subject.paths == ("nowhere.jpg", "rocket.jpg")
    assert subject.failure.message == "line 1: nowhere.jpg: no such file"
    msgspec.json.encode(subject)
