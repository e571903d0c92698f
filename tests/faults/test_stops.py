"""Signals that speak of the run, not of an item: it stops at once, says why, and nothing is marked as failed."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.service import error_of, fault, manifest, service
from tests.support import generated
from tests.support.processes import KEY, Ended, by_key, lines, run

ROWS = {f"row {number:03d}": {} for number in range(60)}


def stopped(ended: Ended, exit_code: int, *words: str) -> None:
    """Assert a stop with ``exit_code`` that says ``words``, without one failed item."""
    assert ended.exit_code == exit_code, ended.stderr
    assert "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.summary["reason"], ended.summary["reason"]
    assert ended.summary["errors"] == {}
    assert ended.summary["items"]["left"] > 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("429_limit_zero", ["no quota for this model"]),
        ("429_prepaid", ["credits are depleted"]),
        ("400_key_expired", ["GEMINI_API_KEY"]),
        ("403_leaked", ["leaked"]),
        ("403_service_disabled", ["disabled"]),
        ("400_location", ["location"]),
        ("404_model", ["--model"]),
        ("redirect", ["redirects", "https://upload.example.com"]),
    ],
)
def test_what_every_call_would_meet_stops_the_run(tmp_path: Path, kind: str, words: list[str]) -> None:
    """Exit 5 after a handful of requests, with a sentence that says what to do."""
    faults = [fault(kind, route="generate")]
    if kind == "400_key_expired":  # a key is refused for good only where a free call is refused as well
        faults.append(fault(kind, route="model_get", after=1))
    with service(*faults, plan="[latency]\ngenerate = 0.05") as server:
        rows = manifest(tmp_path / "rows.jsonl", ROWS)
        ended = run(rows, tmp_path / "run", "--concurrency", 4, base_url=server.base_url)
        stopped(ended, 5, *words)
        assert server.ledger()["faults"][kind] <= 9
    assert lines(tmp_path / "run") == []


def test_a_key_refused_now_and_then_is_asked_about_and_stays(tmp_path: Path) -> None:
    """One free call shows that the key is good after all; the item is sent again."""
    rows = manifest(tmp_path / "rows.jsonl", {key: {} for key in "abc"})
    with service(fault("400_key_invalid", route="generate", first=2)) as server:
        ended = run(rows, tmp_path / "run", base_url=server.base_url)
        assert (ended.exit_code, len(by_key(tmp_path / "run"))) == (0, 3), ended.stderr
        assert server.ledger()["calls"]["model_get"]["200"] >= 2


def test_the_same_400_on_ten_items_stops_the_run(tmp_path: Path) -> None:
    """What ten items in a row are refused for is not theirs (deprecated-generative-ai-python#379)."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    with service(fault("400_mime", route="generate", message="The document has no pages.")) as server:
        ended = run(rows, tmp_path / "run", "--concurrency", 1, base_url=server.base_url)
        assert ended.exit_code == 5, ended.stderr
        assert "no pages" in ended.summary["reason"]
        assert server.ledger()["calls"]["generate"] == {"400": 10}
    assert all(error_of(line) == ("generation", "invalid_request") for line in lines(tmp_path / "run"))


def test_four_hundreds_among_successes_fail_their_items_alone(tmp_path: Path) -> None:
    """Twelve items are refused alike while others succeed: those twelve fail, each with its kind."""
    rows = manifest(tmp_path / "rows.jsonl", {f"{name} {n}": {} for n in range(12) for name in ("long", "fine")})
    with service(fault("400_tokens", route="generate", match="long")) as server:
        ended = run(rows, tmp_path / "run", "--concurrency", 1, base_url=server.base_url)
    assert ended.exit_code == 1, ended.stderr
    assert ended.summary["errors"] == {"context_too_long": 12}


def test_a_proxy_that_rewrites_answers_stops_the_run(tmp_path: Path) -> None:
    """HTML in the place of ten items' answers is a captive portal, not bad luck."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    with service(fault("html_200", route="generate")) as server:
        ended = run(rows, tmp_path / "run", base_url=server.base_url)
        stopped(ended, 5, "rewrites")
        assert ended.seconds < 8


def test_a_daily_quota_stops_at_once_and_the_next_day_does_the_rest(tmp_path: Path) -> None:
    """None starts after the first PerDay answer was read, whatever its delay says; nothing failed, nothing is lost."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    plan = "[latency]\ngenerate = [0.05, 0.1]\n[[quota]]\nrequests_per_day = 25\nfree_tier = true"
    with service(plan=plan) as server:
        for day, done in enumerate((25, 50, 60)):
            ended = run(rows, tmp_path / "run", "--concurrency", 1, base_url=server.base_url)
            refused = server.ledger()["calls"]["generate"].get("429", 0)
            assert len(by_key(tmp_path / "run")) == server.ledger()["paid_answers"] == done
            if done < 60:
                stopped(ended, 3, "daily quota")
                assert ended.seconds < 10
                assert refused == day + 1
                server.call("clock", {"advance_seconds": 24 * 3600})
        assert ended.exit_code == 0, ended.stderr
        assert all(answers == 1 for answers in server.ledger()["paid_by_item"].values())


@pytest.mark.parametrize("retry_info", ["5s", None])
def test_a_daily_quota_with_a_short_delay_is_believed(tmp_path: Path, retry_info: str | None) -> None:
    """The quota's name beats its RetryInfo: calls that are out may be refused too, but none starts any more."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    more = {} if retry_info is None else {"retry_info": retry_info}
    with service(fault("429_rpd", route="generate", after=20, **more), plan="[latency]\ngenerate = 0.2") as server:
        ended = run(rows, tmp_path / "run", "--concurrency", 3, base_url=server.base_url)
        stopped(ended, 3, "daily quota")
        calls = [call for call in server.calls() if call["route"] == "generate"]
        assert sum(call["status"] == 429 for call in calls) <= 1 + 2
        assert len(by_key(tmp_path / "run")) == 20


class Witness:
    """A socket that counts who comes and what they say."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.connections = 0
        self.heard = b""


@contextmanager
def witness() -> Iterator[Witness]:
    """A foreign host on loopback: listens, answers nothing, remembers everything."""
    with socket.create_server(("127.0.0.2", 0)) as listener:
        listener.settimeout(0.1)
        one = Witness(f"http://127.0.0.2:{listener.getsockname()[1]}")
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    visitor, _ = listener.accept()
                except TimeoutError:
                    continue
                one.connections += 1
                visitor.settimeout(0.5)
                with visitor:
                    one.heard += visitor.recv(65536)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield one
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    ("kind", "route"),
    [
        ("upload_foreign_url", "upload_start"),
        ("redirect", "upload_start"),
        ("redirect", "generate"),
        ("redirect", "upload_chunk"),
    ],
)
def test_a_foreign_host_hears_nothing(tmp_path: Path, kind: str, route: str) -> None:
    """Neither a byte nor a connection reaches the host that an upload URL or a redirect names; exit 5."""
    folder = generated.pictures(tmp_path / "media", 2)
    with witness() as foreign, service(fault(kind, route=route, host=foreign.host)) as server:
        ended = run(folder, tmp_path / "run", "--via", "files", "--verbose", base_url=server.base_url)
        stopped(ended, 5, foreign.host)
        time.sleep(0.2)
        assert (foreign.connections, foreign.heard) == (0, b"")
        assert server.ledger()["uploads"] == [] or route == "generate"
    assert KEY not in ended.stderr + ended.stdout


def test_an_upload_url_that_is_missing_once_is_asked_for_again(tmp_path: Path) -> None:
    """A start reply without its header is bad luck once, and a header-stripping proxy when it happens to all."""
    folder = generated.pictures(tmp_path / "media", 12)
    with service(fault("upload_no_url", first=2)) as server:
        ended = run(folder, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert server.ledger()["faults"] == {"upload_no_url": 2}
    with service(fault("upload_no_url")) as server:
        ended = run(folder, tmp_path / "other", "--via", "files", base_url=server.base_url)
        stopped(ended, 5, "X-Goog-Upload-URL")
        assert "generate" not in server.ledger()["calls"]


def test_one_item_without_an_upload_url_fails_after_three_tries(tmp_path: Path) -> None:
    """The item fails as upload_failed; the others are not its hostages."""
    folder = generated.pictures(tmp_path / "media", 3)
    with service(fault("upload_no_url", match="00001.png")) as server:
        ended = run(folder, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert ended.exit_code == 1, ended.stderr
        line = by_key(tmp_path / "run")["00001.png"]
        assert error_of(line) == ("upload", "upload_failed")
        assert server.ledger()["faults"] == {"upload_no_url": 3}
