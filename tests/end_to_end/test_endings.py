"""How runs end early: signals, deadlines, locks, limits; and that the next run goes on."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import generated
from tests.support.processes import Emulator, Ended, by_key, emulator, pipeline, run, start

PLAN = 'describe = "brief"\n[latency]\ngenerate = [0.3, 0.6]'


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, no two alike."""
    return generated.pictures(tmp_path_factory.mktemp("media"), 200)


HANGING = 'describe = "brief"\n[[fault]]\nkind = "hang"\nroute = "generate"\nafter = 20'
"""Twenty answers, and then none."""


def signalled(
    media: Path, output: Path, server: Emulator, *signals: signal.Signals, grace: float = 60, at_lines: int = 30
) -> Ended:
    """Start a run, send it the signals under load, and let it end."""
    process = start(
        "run", media, "-o", output, "--base-url", server.base_url, "--json", "--concurrency", 16, "--grace", grace
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        path = output / "results.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= at_lines:
            break
        time.sleep(0.02)
    began = time.monotonic()
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.1)
    stdout, stderr = process.communicate(timeout=60)
    return Ended(process.returncode, stdout, stderr, time.monotonic() - began, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains(media: Path, tmp_path: Path, number: signal.Signals) -> None:
    """What was paid for is on disk, nothing is in doubt, and the next run pays for nothing twice."""
    with emulator(PLAN) as server:
        ended = signalled(media, tmp_path / "run", server, number)
        assert ended.exit_code == 128 + number, ended.stderr
        assert len(by_key(tmp_path / "run")) == server.ledger()["paid_answers"] < 200
        assert ended.summary["in_doubt"] == []
        assert ended.summary["items"]["left"] > 0
        rest = run(media, tmp_path / "run", base_url=server.base_url)
        assert rest.exit_code == 0, rest.stderr
        assert server.ledger()["paid_answers"] == 200
        assert len(by_key(tmp_path / "run")) == 200


def test_a_second_signal_ends_it_at_once(media: Path, tmp_path: Path) -> None:
    """Calls that are out are cut off and named in doubt; the exit code is the signal's."""
    with emulator(HANGING) as server:
        ended = signalled(media, tmp_path / "run", server, signal.SIGTERM, signal.SIGTERM, at_lines=20)
    assert ended.exit_code == 143
    assert ended.seconds < 10
    assert 1 <= len(ended.summary["in_doubt"]) <= 16
    assert "Traceback" not in ended.stderr


def test_calls_longer_than_the_grace_are_in_doubt(media: Path, tmp_path: Path) -> None:
    """The drain ends when its grace does, and says which items may have been billed."""
    with emulator(HANGING) as server:
        ended = signalled(media, tmp_path / "run", server, signal.SIGTERM, grace=1, at_lines=20)
        assert ended.exit_code == 143
        assert ended.seconds < 10
        assert 1 <= len(ended.summary["in_doubt"]) <= 16
        status = pipeline("status", tmp_path / "run", "--json")
    assert status.summary["in_doubt"] == ended.summary["in_doubt"]


def test_max_time_ends_the_process_in_time(media: Path, tmp_path: Path) -> None:
    """No call starts later than the grace before the end, the process has ended by it, exit 3."""
    with emulator(PLAN) as server:
        ended = run(
            media, tmp_path / "run", "--max-time", "6s", "--grace", "3", "--concurrency", "4", base_url=server.base_url
        )
        assert ended.exit_code == 3, ended.stderr
        assert ended.summary["wall_seconds"] < 6
        assert "deadline" in ended.summary["reason"]
        assert 0 < len(by_key(tmp_path / "run")) == server.ledger()["paid_answers"] < 200
        assert ended.summary["in_doubt"] == []


def test_a_deadline_within_the_grace_starts_nothing(media: Path, tmp_path: Path) -> None:
    """With less time than the grace no call is sent, and the sentence says why."""
    with emulator(PLAN) as server:
        ended = run(media, tmp_path / "run", "--max-time", "5s", base_url=server.base_url)
        assert ended.exit_code == 3
        assert server.ledger()["calls"].get("generate", {}) == {}
    assert "--grace" in ended.summary["reason"]


def test_a_folder_is_held_by_one_run(media: Path, tmp_path: Path) -> None:
    """A second run ends with 4 within a second of its start-up, and the first is not disturbed."""
    with emulator(PLAN) as server:
        first = start("run", media, "-o", tmp_path / "run", "--base-url", server.base_url, "--concurrency", 16)
        while not (tmp_path / "run" / "results.jsonl").exists():
            time.sleep(0.02)
        (tmp_path / "link").symlink_to(tmp_path / "run")
        for output in (tmp_path / "run", tmp_path / "link"):
            second = pipeline("run", media, "-o", output, "--base-url", server.base_url)
            assert second.exit_code == 4, second.stderr
            assert second.seconds < 6  # most of it starting Python on a busy machine
        assert pipeline("status", tmp_path / "run", "--json").summary["run_is_on"]
        first.communicate(timeout=60)
        assert first.returncode == 0
        assert server.ledger()["paid_answers"] == 200


def test_limit_takes_the_first_items_that_would_be_sent(media: Path, tmp_path: Path) -> None:
    """``--limit`` sends the next N in SOURCE order, and the exit code speaks of what it chose."""
    with emulator('describe = "brief"') as server:
        for expected in (5, 10):
            ended = run(media, tmp_path / "run", "--limit", "5", base_url=server.base_url)
            assert ended.exit_code == 0
            assert sorted(by_key(tmp_path / "run")) == [f"{n:05d}.png" for n in range(expected)]


def test_a_changed_prompt_runs_keeps_or_stops(media: Path, tmp_path: Path) -> None:
    """``--on-change`` decides about done items whose prompt changed; new media are sent in any case."""
    folder = tmp_path / "media"
    generated.pictures(folder, 3)
    with emulator('describe = "brief"') as server:
        url = server.base_url
        assert run(folder, tmp_path / "run", base_url=url).summary["items"]["succeeded"] == 3
        stopped = run(folder, tmp_path / "run", "-p", "New?", "--on-change", "stop", base_url=url)
        assert (stopped.exit_code, stopped.summary["requests"]) == (5, 0)
        assert "3 done items" in stopped.summary["reason"]
        generated.pictures(folder, 4)
        kept = run(folder, tmp_path / "run", "-p", "New?", "--on-change", "keep", base_url=url)
        assert (kept.exit_code, kept.summary["requests"], kept.summary["items"]["unchanged"]) == (0, 1, 3)
        again = run(folder, tmp_path / "run", "-p", "New?", base_url=url)
        assert (again.exit_code, again.summary["requests"]) == (0, 3)
        assert len(by_key(tmp_path / "run")) == 4
        superseded = (tmp_path / "run" / "superseded.jsonl").read_text().splitlines()
        assert len(superseded) == 3
        assert all("Describe this media" in json.loads(line)["text"] for line in superseded)


def test_permanent_failures_wait_for_retry_failed(tmp_path: Path) -> None:
    """A blocked item is not asked about again by itself; with ``--retry-failed`` it is."""
    folder = generated.pictures(tmp_path / "media", 2)
    plan = '[[fault]]\nkind = "block_prompt"\nroute = "generate"\nreason = "PROHIBITED_CONTENT"\nfirst = 1\n'
    with emulator(plan) as server:
        url = server.base_url
        first = run(folder, tmp_path / "run", "--concurrency", "1", base_url=url)
        assert (first.exit_code, first.summary["items"]["blocked"]) == (1, 1)
        assert first.summary["errors"] == {"prohibited_content": 1}
        second = run(folder, tmp_path / "run", base_url=url)
        assert (second.exit_code, second.summary["requests"], second.summary["items"]["failed_before"]) == (1, 0, 1)
        third = run(folder, tmp_path / "run", "--retry-failed", base_url=url)
        assert (third.exit_code, third.summary["requests"]) == (0, 1)
        assert {line["status"] for line in by_key(tmp_path / "run").values()} == {"succeeded"}


def test_media_that_are_away_for_a_night_cost_no_answer(tmp_path: Path) -> None:
    """With the disk not mounted the run says so and fails, keeps the answers, and pays for nothing when it is back."""
    generated.pictures(tmp_path / "media", 3)
    (tmp_path / "here.png").write_bytes(generated.image("PNG", 9))
    manifest = tmp_path / "m.jsonl"
    names = [*(f"media/{n:05d}.png" for n in range(3)), "here.png"]
    manifest.write_text("".join(json.dumps({"media": name}) + "\n" for name in names))
    with emulator('describe = "brief"') as server:
        assert run(manifest, tmp_path / "run", base_url=server.base_url).exit_code == 0
        (tmp_path / "media").rename(tmp_path / "away")
        night = run(manifest, tmp_path / "run", base_url=server.base_url)
        assert (night.exit_code, night.summary["errors"]) == (1, {"missing_file": 3})
        assert "3 done items" in night.stderr
        (tmp_path / "away").rename(tmp_path / "media")
        back = run(manifest, tmp_path / "run", base_url=server.base_url)
        assert (back.exit_code, back.summary["requests"]) == (0, 0)
