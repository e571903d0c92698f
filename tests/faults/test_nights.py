"""Night after night over the same folder: whatever ended a night, the next does what is left, and nothing twice."""

import signal
from pathlib import Path

from tests.faults.service import error_of, fault, follow, manifest, service, started, wait_until
from tests.support import generated
from tests.support.processes import by_key, lines, run

CALM = "[latency]\ngenerate = 0.1"
DAY = {"advance_seconds": 24 * 3600}
AT_ONCE = 4


def test_five_nights_add_up(tmp_path: Path) -> None:
    """Quota, SIGTERM, kill -9, an end, a changed prompt: paid = items + what the kill doubled + asked anew."""
    folder, output = tmp_path / "media", tmp_path / "run"
    with service(plan=CALM + "\n[[quota]]\nrequests_per_day = 8\nfree_tier = true") as server:
        url = server.base_url

        def paid() -> int:
            return int(server.ledger()["paid_answers"])

        generated.pictures(folder, 16)
        first = run(folder, output, "--concurrency", AT_ONCE, base_url=url)
        assert (first.exit_code, paid(), len(by_key(output))) == (3, 8, 8), first.stderr

        server.call("clock", DAY)
        follow(server, plan=CALM)
        generated.pictures(folder, 32)
        with started(folder, output, "--concurrency", AT_ONCE, base_url=url) as second:
            wait_until(lambda: paid() >= 16)
            second.send_signal(signal.SIGTERM)
            second.communicate(timeout=30)
        assert second.returncode == 143
        assert 16 <= paid() == len(by_key(output)) < 32

        server.call("clock", DAY)
        generated.pictures(folder, 48)
        with started(folder, output, "--concurrency", AT_ONCE, base_url=url) as third:
            wait_until(lambda: paid() >= 36)
            third.kill()
            third.communicate()
        kept = {line["key"] for line in lines(output)}
        assert 32 <= len(kept) < 48

        server.call("clock", DAY)
        fourth = run(folder, output, "--concurrency", AT_ONCE, base_url=url)
        assert (fourth.exit_code, len(by_key(output))) == (0, 48), fourth.stderr
        twice = sum(answers - 1 for answers in server.ledger()["paid_by_item"].values())
        doubted = fourth.summary["in_doubt"]
        assert twice <= len(doubted) <= AT_ONCE
        assert not kept & set(doubted)
        assert paid() == 48 + twice

        server.call("clock", DAY)
        fifth = run(folder, output, "-p", "And now?", base_url=url)
        assert (fifth.exit_code, fifth.summary["requests"]) == (0, 48), fifth.stderr
        assert paid() == 48 + twice + 48
        assert all("And now?" in line["text"] for line in by_key(output).values())

        calls = server.ledger()["calls_total"]
        last = run(folder, output, "-p", "And now?", base_url=url)
        assert (last.exit_code, last.summary["items"]["unchanged"]) == (0, 48)
        assert server.ledger()["calls_total"] == calls
        assert last.seconds < 5


def test_nights_that_end_at_their_deadline_add_up(tmp_path: Path) -> None:
    """Seven nights too short for the job, with some 503 in all of them: calls are items and what failed."""
    rows = manifest(tmp_path / "rows.jsonl", {f"row {number:03d}": {} for number in range(140)})
    arguments = ("--concurrency", 3, "--max-time", "4s", "--grace", "2")
    with service(fault("503", route="generate", rate=0.04), plan="[latency]\ngenerate = 0.3") as server:
        nights = [run(rows, tmp_path / "run", *arguments, base_url=server.base_url) for _ in range(7)]
        assert {night.exit_code for night in nights[:6]} == {3}
        assert max(night.summary["wall_seconds"] for night in nights) < 4
        assert sum(night.summary["requests"] for night in nights) >= 30
        nights.append(run(rows, tmp_path / "run", base_url=server.base_url))
        assert nights[-1].exit_code == 0, nights[-1].stderr
        calls = sum(server.ledger()["calls"]["generate"].values())
        assert calls == sum(night.summary["requests"] for night in nights)
        failed = server.ledger()["faults"]["503"]
        assert calls == 140 + failed
        retries = sum(night.summary["retries"] for night in nights)
        assert retries <= failed <= retries + 7 * 3  # one that a deadline met while it waited is a night's first call
        assert len(by_key(tmp_path / "run")) == server.ledger()["paid_answers"] == 140
        everything = server.ledger()["calls_total"]
        last = run(rows, tmp_path / "run", *arguments, base_url=server.base_url)
        assert (last.exit_code, last.summary["items"]["unchanged"]) == (0, 140)
        assert server.ledger()["calls_total"] == everything
        assert last.seconds < 5


def test_an_item_lost_to_ambiguous_faults_three_nights_in_a_row_is_given_up(tmp_path: Path) -> None:
    """Each night may have paid for it: after the third only ``--retry-failed`` sends it again."""
    rows = manifest(tmp_path / "rows.jsonl", {"doomed": {}, "fine": {}})
    settings = ("--set", "generation.attempts=1")
    with service(fault("reset_after", route="generate", match="doomed")) as server:
        for night in (1, 2, 3):
            ended = run(rows, tmp_path / "run", *settings, base_url=server.base_url)
            assert ended.exit_code == 1, ended.stderr
            line = by_key(tmp_path / "run")["doomed"]
            assert error_of(line) == ("generation", "network")
            assert line["error"]["retryable"] == (night < 3)
        before = server.ledger()["calls_total"]
        fourth = run(rows, tmp_path / "run", *settings, base_url=server.base_url)
        assert (fourth.exit_code, fourth.summary["items"]["failed_before"]) == (1, 1)
        assert server.ledger()["calls_total"] == before
        follow(server)
        fifth = run(rows, tmp_path / "run", "--retry-failed", *settings, base_url=server.base_url)
        assert (fifth.exit_code, fifth.summary["requests"]) == (0, 1), fifth.stderr


def test_faults_that_bill_nothing_never_make_a_failure_permanent(tmp_path: Path) -> None:
    """Three nights of 503 for one item, and the fourth answers it."""
    rows = manifest(tmp_path / "rows.jsonl", {"unlucky": {}, "fine": {}})
    with service(fault("503", route="generate", match="unlucky")) as server:
        for _ in range(3):
            ended = run(rows, tmp_path / "run", "--set", "generation.attempts=1", base_url=server.base_url)
            assert ended.exit_code == 1, ended.stderr
        follow(server)
        assert run(rows, tmp_path / "run", base_url=server.base_url).exit_code == 0


def test_items_in_doubt_are_held_where_that_is_asked_for(tmp_path: Path) -> None:
    """After a kill with calls out those items get a failed line, and nothing is paid for them without a word."""
    rows = manifest(tmp_path / "rows.jsonl", {f"row {number:02d}": {} for number in range(20)})
    with service(fault("hang", route="generate", after=8)) as server:
        with started(rows, tmp_path / "run", "--concurrency", 3, base_url=server.base_url) as process:
            wait_until(lambda: server.ledger()["in_flight"] == 3 and len(lines(tmp_path / "run")) == 8)
            process.kill()
            process.communicate()
        follow(server)
        settings = ("--set", "run.in_doubt=hold")
        ended = run(rows, tmp_path / "run", *settings, base_url=server.base_url)
        assert len(ended.summary["in_doubt"]) == 3
        found = by_key(tmp_path / "run")
        assert ended.exit_code == 1, ended.stderr
        assert ended.summary["errors"] == {"in_doubt": 3}
        held = {key for key, line in found.items() if line["status"] == "failed"}
        assert held == set(ended.summary["in_doubt"])
        assert {error_of(found[key]) for key in held} == {("generation", "in_doubt")}
        again = run(rows, tmp_path / "run", *settings, "--retry-failed", base_url=server.base_url)
        assert (again.exit_code, again.summary["requests"]) == (0, 3), again.stderr
