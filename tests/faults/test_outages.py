"""The service, or a part of it, is down for a while, or says for how long in numbers that nobody can mean."""

import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.service import error_of, fault, follow, manifest, service, started, wait_until
from tests.support import generated
from tests.support.processes import by_key, lines, run

ROWS = {f"row {number:03d}": {} for number in range(40)}


@pytest.mark.parametrize("kind", ["503", "reset_before"])
def test_an_outage_of_everything_fails_no_item(tmp_path: Path, kind: str) -> None:
    """All calls fail for five seconds, then recover: 0 items failed, and few calls were wasted."""
    outage(tmp_path, kind, seconds=5.0)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["503", "reset_before"])
def test_a_longer_outage_of_everything_fails_no_item(tmp_path: Path, kind: str) -> None:
    """The same over 20 s."""
    outage(tmp_path, kind, seconds=20.0)


def outage(tmp_path: Path, kind: str, *, seconds: float) -> None:
    """Let everything fail for a while after the first answers."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    with service(plan="[latency]\ngenerate = 0.2") as server:
        with started(rows, tmp_path / "run", "--concurrency", 8, base_url=server.base_url) as process:
            wait_until(lambda: server.ledger()["paid_answers"] >= 8)
            follow(server, fault(kind, route="*"), plan="[latency]\ngenerate = 0.2")
            time.sleep(seconds)
            wasted = server.ledger()["faults"][kind]
            follow(server, plan="[latency]\ngenerate = 0.2")
            _, stderr = process.communicate(timeout=90)
        assert process.returncode == 0, stderr
        assert wasted <= 8 * 4 + seconds * 2
    assert {line["status"] for line in by_key(tmp_path / "run").values()} == {"succeeded"}


def test_nothing_to_be_reached_at_all_ends_the_run(tmp_path: Path) -> None:
    """A base URL where nothing answers is told at once, before any item is touched."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    ended = run(rows, tmp_path / "run", base_url="http://127.0.0.1:9")
    assert ended.exit_code == 5, ended.stderr
    assert "nothing answers" in ended.summary["reason"]
    assert ended.seconds < 10
    assert lines(tmp_path / "run") == []


def test_generation_goes_on_while_uploads_are_down(tmp_path: Path) -> None:
    """Every upload is refused; items that need none are answered meanwhile, and the others wait for the recovery."""
    generated.pictures(tmp_path / "media", 12)
    rows = {f"by file {n:02d}": {"media": f"media/{n:05d}.png"} for n in range(12)}
    with service(fault("503_empty", route=["upload_start", "upload_chunk"])) as server:
        mixed = manifest(tmp_path / "rows.jsonl", rows | {f"text {n:03d}": {} for n in range(100)})
        arguments = ("--via", "files", "--uploads", 4)
        with started(mixed, tmp_path / "run", *arguments, base_url=server.base_url) as process:
            wait_until(lambda: server.ledger()["paid_answers"] >= 100, 15)
            assert server.ledger()["paid_answers"] == 100
            assert server.ledger()["uploads"] == []
            follow(server)
            _, stderr = process.communicate(timeout=90)
        assert process.returncode == 0, stderr
    assert len(by_key(tmp_path / "run")) == 112


def test_one_item_that_the_service_never_answers_fails_alone(tmp_path: Path) -> None:
    """503 for one item, six times, while all others succeed: unavailable, and retryable."""
    rows = manifest(tmp_path / "rows.jsonl", {key: {} for key in ("unlucky", "b", "c")})
    with service(fault("503", route="generate", match="unlucky")) as server:
        ended = run(rows, tmp_path / "run", "--set", "generation.attempts=3", base_url=server.base_url)
        assert ended.exit_code == 1, ended.stderr
        line = by_key(tmp_path / "run")["unlucky"]
        assert (error_of(line), line["attempts"]) == (("generation", "unavailable"), 3)
        assert line["error"]["retryable"]
        assert line["error"]["http_status"] == 503
        follow(server)
        again = run(rows, tmp_path / "run", base_url=server.base_url)
        assert (again.exit_code, again.summary["requests"]) == (0, 1), again.stderr


def test_an_outage_after_a_day_quota_that_was_none_is_waited_out(tmp_path: Path) -> None:
    """A 429 that names day and minute, an answer that refutes the day, then three bad seconds: the run goes on."""
    rows = manifest(tmp_path / "rows.jsonl", {f"row {number:03d}": {} for number in range(200)})
    doubted = fault("429_rpd_and_rpm", route="generate", first=1, retry_info="0.5s", quota_value=60_000)
    outage = fault("503", route="generate", after_seconds=4, until_seconds=7)
    with service(doubted, outage, plan="[latency]\ngenerate = 0.4") as server:
        ended = run(rows, tmp_path / "run", "--concurrency", 12, base_url=server.base_url, timeout=60)
        assert server.ledger()["faults"]["503"] >= 10
    assert ended.exit_code == 0, ended.stderr


def test_half_of_all_calls_failing_gets_few_calls_again(tmp_path: Path) -> None:
    """At no moment more retries than ten, a tenth of the answers and two a second: every item is answered in the end.

    Eight more may go together when what looked like an outage of everything is over.
    """
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    with service(fault("503", route="generate", rate=0.5), plan="seed = 5") as server:
        settings = ("--concurrency", 16, "--set", "generation.attempts=30")
        ended = run(rows, tmp_path / "run", *settings, base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        calls = [call for call in server.calls() if call["route"] == "generate"]
    assert len(by_key(tmp_path / "run")) == len(ROWS)
    retries = answered = 0
    began = datetime.fromisoformat(calls[0]["time"])
    for call in calls:
        seconds = (datetime.fromisoformat(call["time"]) - began).total_seconds()
        retries += call["attempt"] > 1
        answered += call["status"] == 200
        assert retries <= 10 + 0.1 * answered + 2 * seconds + 8
    assert retries == ended.summary["retries"] >= 0.5 * len(ROWS)


@pytest.mark.parametrize("retry_info", ["9223372036854775807s", "-1s", "NaNs", "0.25s", "soon"])
def test_an_absurd_delay_is_waited_for_within_reason(tmp_path: Path, retry_info: str) -> None:
    """One 429 with a delay that nobody can mean: the run stays alive, ends on a signal, and nothing has failed."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    refusal = fault("429_rpm", route="generate", first=1, after=10, retry_info=retry_info, quota_value=60_000)
    with service(refusal) as server:
        with started(rows, tmp_path / "run", "--concurrency", 1, base_url=server.base_url) as process:
            wait_until(lambda: server.ledger()["faults"])
            time.sleep(0.3)
            if retry_info != "0.25s":
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, stderr = process.communicate(timeout=30)
        assert process.returncode == (0 if retry_info == "0.25s" else 143), stderr
        assert time.monotonic() - began < 5
        assert {line["status"] for line in lines(tmp_path / "run")} == {"succeeded"}


@pytest.mark.soak
@pytest.mark.timeout(240)
@pytest.mark.parametrize("retry_info", ["9223372036854775807s", "-1s", "NaNs", "soon"])
def test_an_absurd_delay_passes(tmp_path: Path, retry_info: str) -> None:
    """In its full length: at most two minutes later the run goes on, and every item has its answer."""
    rows = manifest(tmp_path / "rows.jsonl", ROWS)
    refusal = fault("429_rpm", route="generate", first=1, after=10, retry_info=retry_info, quota_value=60_000)
    with service(refusal) as server:
        ended = run(rows, tmp_path / "run", "--concurrency", 4, base_url=server.base_url, timeout=200)
    assert ended.exit_code == 0, ended.stderr
    assert ended.seconds < 150
