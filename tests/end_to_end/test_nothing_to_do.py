"""A night with nothing to do: no call of any kind, also over many items, and what left SOURCE is told."""

import json
import os
from pathlib import Path

from pipeline.manifest.fingerprint import fingerprint, prompt_sha256
from pipeline.records import Answer, Item, Outcome, Status
from pipeline.results import durable
from pipeline.results.record import encode, line_of
from tests.support import generated
from tests.support.builders import NOW
from tests.support.processes import emulator, run

ITEMS = 10_000
REMOVED = 3
MODEL = "gemini-3.8-flash"
AT_MOST_SECONDS = 30.0
"""One on an idle machine; reading each item's line again for each item would take minutes."""


def done(number: int, backend: str) -> bytes:
    """The line of an item that was answered in an earlier night."""
    prompt = f"What is {number} times two?"
    item = Item(
        key=f"k{number}",
        position=number,
        line=number + 1,
        model=MODEL,
        media=(),
        prompt=prompt,
        prompt_sha256=prompt_sha256(prompt),
        fingerprint=fingerprint(media=(), prompt=prompt, model=MODEL, generation={}, safety={}),
    )
    answer = Answer(text=str(2 * number))
    outcome = Outcome(subject=item, status=Status.SUCCEEDED, answer=answer, started_at=NOW, finished_at=NOW)
    return encode(line_of(outcome, backend))


def test_no_call_is_made_over_many_done_items_and_removed_ones_are_told(tmp_path: Path) -> None:
    """Not even the free check of the model; items that left SOURCE are counted apart and change no exit code."""
    manifest, output = tmp_path / "manifest.jsonl", tmp_path / "run"
    rows = ({"key": f"k{number}", "prompt": f"What is {number} times two?"} for number in range(ITEMS))
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    output.mkdir(mode=0o700)
    fd = os.open(output / "results.jsonl", durable.OPEN_FLAGS, durable.PRIVATE_FILE)
    durable.write_all(fd, b"".join(done(number, "127.0.0.1") for number in range(ITEMS + REMOVED)))
    os.close(fd)
    before = (output / "results.jsonl").read_bytes()
    with emulator() as server:
        for _ in ("without a ledger", "with it"):
            ended = run(manifest, output, base_url=server.base_url)
            assert ended.exit_code == 0, ended.stderr
            assert server.ledger()["calls_total"] == 0
            items = ended.summary["items"]
            assert (items["total"], items["unchanged"], items["removed"]) == (ITEMS, ITEMS, REMOVED)
            assert f"{REMOVED} no longer in SOURCE" in ended.stderr
            assert ended.summary["wall_seconds"] < AT_MOST_SECONDS
    assert (output / "results.jsonl").read_bytes() == before


def test_order_times_and_places_change_nothing(tmp_path: Path) -> None:
    """Rows in another order, touched and copied media, a run folder that has moved: 0 calls, the same lines."""
    generated.pictures(tmp_path / "media", 4)
    manifest = tmp_path / "manifest.jsonl"
    rows = [json.dumps({"media": f"media/{number:05d}.png"}) + "\n" for number in range(4)]
    manifest.write_text("".join(rows))
    with emulator() as server:
        assert run(manifest, tmp_path / "run", base_url=server.base_url).exit_code == 0
        before = (tmp_path / "run" / "results.jsonl").read_bytes()
        calls = server.ledger()["calls_total"]
        manifest.write_text("".join(reversed(rows)))
        os.utime(tmp_path / "media" / "00000.png")
        copy = tmp_path / "media" / "copy"
        copy.write_bytes((tmp_path / "media" / "00001.png").read_bytes())
        copy.replace(tmp_path / "media" / "00001.png")
        (tmp_path / "run").rename(tmp_path / "moved")
        again = run(manifest, tmp_path / "moved", base_url=server.base_url)
        assert (again.exit_code, again.summary["items"]["unchanged"]) == (0, 4), again.stderr
        assert server.ledger()["calls_total"] == calls
    assert (tmp_path / "moved" / "results.jsonl").read_bytes() == before
