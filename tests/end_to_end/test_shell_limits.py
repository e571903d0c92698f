"""What a shell gives a run: too few descriptors, or a working directory that is gone."""

import json
from pathlib import Path

import pytest

from tests.support import generated
from tests.support.processes import KEY, Ended, by_key, emulator, in_shell

ITEMS = 200
AT_ONCE = 150


@pytest.mark.parametrize(
    ("script", "raised"),
    [('ulimit -Sn 64; exec "$@"', True), ('ulimit -n 64; exec "$@"', False)],
    ids=["soft limit", "hard limit"],
)
def test_more_connections_than_the_shell_allows(tmp_path: Path, script: str, raised: bool) -> None:
    """A soft limit is raised, and no call fails for it; a hard one slows a run down, and fails no item."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"key": f"k{n}", "prompt": f"p{n}"}) + "\n" for n in range(ITEMS)))
    with emulator('describe = "brief"\n[latency]\ngenerate = 1.0') as server:
        options = ["--base-url", server.base_url, "--concurrency", AT_ONCE, "--json"]
        ended = in_shell(script, "run", rows, "-o", tmp_path / "run", *options, key=KEY)
        assert ended.exit_code == 0, ended.stderr
        ledger = server.ledger()
    assert len(by_key(tmp_path / "run")) == ledger["paid_answers"] == ITEMS
    assert (ledger["most_in_flight_generate"] > 64) is raised
    assert (ended.summary["retries"] == 0) is raised


GONE = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'


def no_directory(ended: Ended) -> None:
    """Assert exit 2, and a sentence that says what is wrong."""
    assert ended.exit_code == 2, ended.stderr
    assert [line for line in ended.stderr.splitlines() if not line.startswith("shell-init")] == [
        "pipeline: the working directory can't be found (No such file or directory): cd to one that is there"
    ]


def test_a_working_directory_that_was_deleted(tmp_path: Path) -> None:
    """What starts from it says so and ends with 2; what needs none of it works."""
    folder = generated.pictures(tmp_path / "media", 2)
    output = tmp_path / "run"
    for source in (folder, "media"):
        ended = in_shell(GONE, "run", source, "-o", output, "--emulator", "--json", cwd=tmp_path)
        no_directory(ended)
        assert ended.summary["exit_code"] == 2
        assert not output.exists()
    with emulator() as server:
        endpoint = ("--base-url", server.base_url)
        no_directory(in_shell(GONE, "files", "upload", "media/00000.png", *endpoint, key=KEY, cwd=tmp_path))
        assert server.ledger()["calls_total"] == 0
        assert in_shell(GONE, "files", "list", *endpoint, key=KEY, cwd=tmp_path).exit_code == 0
    assert in_shell('exec "$@"', "run", folder, "-o", output, "--emulator").exit_code == 0
    for command in (("status", output, "--json"), ("verify", output), ("--help",)):
        ended = in_shell(GONE, *command, cwd=tmp_path)
        assert ended.exit_code == 0, ended.stderr
