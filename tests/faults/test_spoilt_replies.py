"""Replies that don't arrive, or not whole, or are not the service's: each is asked for again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.service import error_of, fault, manifest, service
from tests.support import generated
from tests.support.processes import Ended, by_key, measured_run, run
from tests.support.proxy import Toxic, proxy

ONCE: dict[str, dict[str, Any]] = {
    "reset_before": {},
    "reset_during": {},
    "reset_after": {},
    "cut by Content-Length": {"kind": "truncated_json"},
    "cut within a chunk": {"kind": "truncated_json", "framing": "chunked"},
    "cut silently by a close": {"kind": "truncated_json", "framing": "close"},
    "html_200": {},
    "502_html": {},
    "empty_body": {},
    "503_empty": {},
    "500": {},
    "503": {},
    "504": {},
    "499": {},
    "408": {},
    "list_wrapped": {},
}
"""Faults of a first attempt, by the prompt of the row that meets them."""


class Seen:
    """One run over a row for each fault."""

    def __init__(self, ended: Ended, lines: dict[str, dict[str, Any]], ledger: dict[str, Any]) -> None:
        self.ended = ended
        self.lines = lines
        self.ledger = ledger


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A run in which every row meets its fault once."""
    path = tmp_path_factory.mktemp("spoilt")
    common = {"route": "generate", "attempt": 1}
    faults = [fault(**common | {"kind": name, "match": f"<{name}>"} | more) for name, more in ONCE.items()]
    rows = manifest(path / "rows.jsonl", {f"<{name}>": {} for name in ONCE} | {"well": {}})
    with service(*faults) as server:
        ended = run(rows, path / "run", base_url=server.base_url)
        yield Seen(ended, by_key(path / "run"), server.ledger())


@pytest.mark.parametrize("name", ONCE)
def test_a_spoilt_reply_is_asked_for_again(seen: Seen, name: str) -> None:
    """The fault struck, and the second attempt gave the answer."""
    assert seen.ledger["faults"][ONCE[name].get("kind", name)] >= 1
    line = seen.lines[f"<{name}>"]
    assert (line["status"], line["attempts"]) == ("succeeded", 2)
    assert f"<{name}>" in line["text"]


def test_spoilt_replies_cost_no_item(seen: Seen) -> None:
    """The run ends with 0, and its summary counts a retry for each fault."""
    assert seen.ended.exit_code == 0, seen.ended.stderr
    assert seen.ended.summary["retries"] == len(ONCE)
    assert seen.lines["well"]["attempts"] == 1


def test_a_reply_that_drips_is_ended_by_the_total_timeout(tmp_path: Path) -> None:
    """A byte every 0.3 s never lets a connection idle: the time-out of the whole call ends it."""
    rows = manifest(tmp_path / "rows.jsonl", {"a": {}, "b": {}})
    with service(fault("slow_loris", route="generate", match="a", attempt=1)) as server:
        ended = run(rows, tmp_path / "run", "--set", "generation.timeout_seconds=1", base_url=server.base_url)
    assert ended.exit_code == 0, ended.stderr
    assert by_key(tmp_path / "run")["a"]["attempts"] == 2
    assert 1 <= ended.summary["wall_seconds"] < 6


def test_replies_that_never_end_fail_their_item_as_a_timeout(tmp_path: Path) -> None:
    """When every attempt times out the item fails, retryable, and the others succeed."""
    rows = manifest(tmp_path / "rows.jsonl", {key: {} for key in ("dark", "b", "c")})
    faults = fault("slow_loris", route="generate", match="dark"), fault("slow", route="generate", match="c", seconds=3)
    with service(*faults) as server:
        settings = ("--set", "generation.timeout_seconds=1", "--set", "generation.attempts=2")
        ended = run(rows, tmp_path / "run", *settings, base_url=server.base_url)
    assert ended.exit_code == 1, ended.stderr
    found = by_key(tmp_path / "run")
    assert found["b"]["status"] == "succeeded"
    for key in ("dark", "c"):
        assert error_of(found[key]) == ("generation", "timeout")
        assert found[key]["error"]["retryable"]


def test_a_decompression_bomb_is_cut_at_the_cap(tmp_path: Path) -> None:
    """A gibibyte of blanks in a megabyte of gzip costs less than 64 MB of memory, and the item is asked again."""
    rows = manifest(tmp_path / "rows.jsonl", {"a": {}, "b": {}, "c": {}})
    peak_bytes = {}
    for name, faults in (("calm", []), ("bombed", [fault("gzip_bomb", route="generate", attempt=1)])):
        with service(*faults) as server:
            ended = measured_run(rows, tmp_path / name, base_url=server.base_url)
            assert server.ledger()["faults"] == ({"gzip_bomb": 3} if faults else {})
        assert ended.exit_code == 0, ended.stderr
        assert {line["status"] for line in by_key(tmp_path / name).values()} == {"succeeded"}
        peak_bytes[name] = ended.peak_bytes
    assert peak_bytes["bombed"] - peak_bytes["calm"] < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("name", "toxic"),
    [
        ("before the body", Toxic("reset", "up", rate=0.5, first=6)),
        ("within the body", Toxic("reset", "up", after_bytes=(5_000, 90_000), first=6)),
        ("before the reply", Toxic("reset", "down", rate=0.5, first=6)),
        ("within the reply", Toxic("cut", "down", after_bytes=(1_000, 3_000), first=6)),
    ],
)
def test_connections_that_break(media: Path, tmp_path: Path, name: str, toxic: Toxic) -> None:
    """Wherever connections break, every item has its answer in the end."""
    with service(plan="[latency]\ngenerate = 0.1") as server, proxy(server.base_url, toxic, seed=19) as way:
        ended = run(media, tmp_path / "run", "--concurrency", 8, base_url=way.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert way.struck[toxic.kind] >= 3, name
        assert len(by_key(tmp_path / "run")) == 24
        if toxic.direction == "up":
            assert server.ledger()["paid_answers"] == 24
        else:
            assert server.ledger()["paid_answers"] <= 24 + way.struck[toxic.kind]


def test_a_slow_and_sliced_network_changes_nothing(media: Path, tmp_path: Path) -> None:
    """Replies in slices of seven bytes, delayed requests: the same answers, no attempt more."""
    slow = Toxic("slow", "down", bytes_per_second=50_000)
    toxics = slow, Toxic("slice", "down", piece_bytes=7), Toxic("latency", "up", seconds=0.05)
    with service() as server, proxy(server.base_url, *toxics) as way:
        ended = run(media, tmp_path / "run", base_url=way.base_url)
        assert (ended.exit_code, ended.summary["retries"]) == (0, 0), ended.stderr
        assert way.struck["latency"] > 0
        assert way.struck["slow"] > 0


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 30 kB, so that their requests have a middle."""
    folder = generated.pictures(tmp_path_factory.mktemp("media"), 24)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().ljust(30_000, b"."))
    return folder
