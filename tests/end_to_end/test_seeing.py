"""What a person and a script see of a run while it is on, and what it says of itself at its end."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import generated
from tests.support.processes import KEY, emulator, pipeline, start

QUOTA = """
describe = "brief"
[latency]
generate = 0.1
[[quota]]
requests_per_minute = 60
window = "token_bucket"
burst = 5
[[fault]]
kind = "503"
route = "generate"
first = 2
"""
SLOW_UPLOADS = 'describe = "brief"\n[latency]\nupload = 0.5'
"""Both runs would go on for minutes: how fast this machine is decides nothing."""

TWO_RETRIES = {"generation": {"unavailable": 2}}
PATIENCE_SECONDS = 80


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More pictures than will be answered."""
    return generated.pictures(tmp_path_factory.mktemp("media"), 400)


class Watched(NamedTuple):
    """A run that was watched, and ended by SIGTERM."""

    live: dict[str, Any]
    told: str
    summary: dict[str, Any]
    stderr: str


def watched(plan: str, media: Path, output: Path, *arguments: object, until: Callable[[Any], bool]) -> Watched:
    """Start a run, ask ``status`` until the live figures satisfy ``until``, and end it."""
    with emulator(plan) as server:
        process = start("run", media, "-o", output, "--base-url", server.base_url, "--json", *arguments)
        try:
            live, told = _seen(process, output, until)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            process.communicate()
            raise
    assert process.returncode == 143, stderr
    return Watched(live, told, json.loads(stdout), stderr)


def _seen(process: "subprocess.Popen[str]", output: Path, until: Callable[[Any], bool]) -> tuple[dict[str, Any], str]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen = None
    while time.monotonic() < deadline:
        assert process.poll() is None
        if (output / "results.jsonl").exists():
            status = pipeline("status", output, "--json")
            seen = status.summary["live"]
            if seen is not None and until(seen):
                return seen, pipeline("status", output).stdout
        time.sleep(0.2)
    raise AssertionError(seen)


def test_a_quota_is_seen(media: Path, tmp_path: Path) -> None:
    """The limit, who refused, what was sent again and that the quota held the run back: live, and at the end."""
    output = tmp_path / "run"
    seen = watched(
        QUOTA,
        media,
        output,
        until=lambda live: (
            live["bottleneck"]["cause"] == "requests_per_minute"
            and live["retries_by_cause"] == TWO_RETRIES
            and live["requests_per_minute"]
            and live["done"]
        ),
    )
    sentence = "generation: the quota of 60 requests a minute"
    for told in (seen.live, seen.summary):
        assert told["bottleneck"]["stage"] == "generation"
        assert told["bottleneck"]["sentence"] == sentence
        quota = told["quotas"]["gemini-3.8-flash"]["requests_per_minute"]
        assert (quota["limit"], quota["is_told"]) == (60, True)
        assert quota["refused"] == told["refused"] > 0
        assert [point["limit"] for point in quota["history"]] == [60]
        assert told["retries_by_cause"] == TWO_RETRIES
        assert told["stages"]["generation"]["waiting"] > 0
        assert 0 <= told["loop_lag_ms"]["p50"] <= told["loop_lag_ms"]["p99"] <= told["loop_lag_ms"]["max"]
    assert seen.live["left"] > 0
    assert seen.live["held_by"] in (None, "requests_per_minute")
    for words in (seen.told, seen.stderr):
        assert f"held back by {sentence}" in words
    assert "gemini-3.8-flash: 60 requests a minute" in seen.told
    assert "sent again after: 2 unavailable (generation)" in seen.stderr

    afterwards = pipeline("status", output, "--json").summary
    assert (afterwards["run_is_on"], afterwards["live"]) == (False, None)
    assert afterwards["last_run"]["bottleneck"] == seen.summary["bottleneck"]
    assert afterwards["last_run"]["quotas"] == seen.summary["quotas"]
    assert f"held back by {sentence}" in pipeline("status", output).stdout
    log = [json.loads(line) for line in (output / "run.log").read_text("utf-8").splitlines()]
    assert {"limit_learnt", "refused", "retrying", "run_ended"} <= {line["action"] for line in log}
    assert log[-1]["summary"]["bottleneck"]["sentence"] == sentence
    assert KEY not in (output / "ledger.sqlite3").read_bytes().decode("latin-1")


def test_slow_uploads_are_seen(media: Path, tmp_path: Path) -> None:
    """With two uploads at once of a second each, uploads are the bottleneck, and their lanes are busy."""
    seen = watched(
        SLOW_UPLOADS,
        media,
        tmp_path / "run",
        *("--via", "files", "--uploads", 2),
        until=lambda live: live["bottleneck"]["stage"] == "upload" and live["done"] and live["items_per_second"],
    )
    for told in (seen.live, seen.summary):
        assert told["bottleneck"]["sentence"] == "upload: the network and the File API at --uploads 2"
        stage = told["stages"]["upload"]
        assert stage["workers"] == 2
        assert stage["busy_share"] > told["stages"]["generation"]["busy_share"]
        assert stage["waiting"] > 1
        assert told["quotas"] == told["retries_by_cause"] == {}
    assert "held back by upload:" in seen.told
    assert "sent again" not in seen.stderr


@pytest.mark.parametrize(("options", "states"), [(["--verbose"], ["uploading", "activating", "generating"]), ([], [])])
def test_every_items_states_are_logged_when_asked_for(tmp_path: Path, options: list[str], states: list[str]) -> None:
    """A clip that is processed goes through all the rooms."""
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").write_bytes(generated.video("mp4", 1))
    with emulator('describe = "brief"\n[processing_seconds]\n"video/*" = 0.2') as server:
        where = ["--via", "files", "--base-url", server.base_url]
        ended = pipeline("run", tmp_path / "media", "-o", tmp_path / "run", *where, *options)
    assert ended.exit_code == 0, ended.stderr
    log = [json.loads(line) for line in (tmp_path / "run" / "run.log").read_text().splitlines()]
    assert [entry["state"] for entry in log if entry["action"] == "item_state" and entry["key"] == "a.mp4"] == states
