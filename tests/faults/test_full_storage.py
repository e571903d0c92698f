"""The project's file storage is full: by this run, which makes room, or by others, whose files are not touched."""

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.faults.service import fault, service, started, wait_until
from tests.support import generated
from tests.support.processes import KEY, Emulator, by_key, run

MEGABYTE = 1_000_000
SMALL = "[limits]\nproject_storage_bytes = 6000000"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of a megabyte."""
    return megabytes(tmp_path_factory.mktemp("media"), 20)


def megabytes(folder: Path, count: int) -> Path:
    """``count`` pictures of a megabyte each."""
    folder.mkdir(exist_ok=True)
    picture = generated.image("JPEG", 1)
    for number in range(count):
        (folder / f"{number:02d}.jpg").write_bytes(picture + os.urandom(MEGABYTE - len(picture)))
    return folder


def deleted(server: Emulator) -> set[str]:
    """The names of the files whose deletion was asked for."""
    return {call["path"].rpartition("/")[2] for call in server.calls() if call["route"] == "file_delete"}


def upload_by_another(server: Emulator, path: Path) -> str:
    """Another client that has the same key uploads a file; returns the file's name."""
    parts = (
        b'Content-Type: application/json\r\n\r\n{"file": {}}',
        b"Content-Type: image/jpeg\r\n\r\n" + path.read_bytes(),
    )
    headers = {
        "x-goog-api-key": KEY,
        "X-Goog-Upload-Protocol": "multipart",
        "Content-Type": "multipart/related; boundary=another-client",
    }
    body = b"".join(b"--another-client\r\n" + part + b"\r\n" for part in parts) + b"--another-client--\r\n"
    request = urllib.request.Request(f"{server.base_url}/upload/v1beta/files", data=body, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
        name: str = json.load(reply)["file"]["name"]
    return name.rpartition("/")[2]


@pytest.mark.parametrize("arguments", [(), ("--set", "upload.keep=false")])
def test_twenty_megabytes_go_through_six(media: Path, tmp_path: Path, arguments: tuple[Any, ...]) -> None:
    """Uploads wait, what nobody needs is deleted, every item has its answer."""
    with service(plan=SMALL + "\n[latency]\ngenerate = 0.1") as server:
        ended = run(media, tmp_path / "run", "--via", "files", *arguments, base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        ledger = server.ledger()
        assert len(ledger["uploads"]) == 20
        assert ledger["paid_answers"] == 20
        assert len(deleted(server)) >= 14
    assert {line["status"] for line in by_key(tmp_path / "run").values()} == {"succeeded"}


def test_a_run_that_knows_the_limit_is_never_refused(media: Path, tmp_path: Path) -> None:
    """With the limit in the configuration no upload starts that would not fit."""
    with service(plan=SMALL) as server:
        settings = ("--set", "limits.project_storage_bytes=6000000")
        ended = run(media, tmp_path / "run", "--via", "files", *settings, base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert "429" not in server.ledger()["calls"]["upload_start"]


def test_storage_filled_by_others_ends_the_run_at_once(media: Path, tmp_path: Path) -> None:
    """Another client of the same key holds it all: exit 3 with the way out, and none of its files is deleted."""
    theirs = megabytes(tmp_path / "theirs", 6)
    with service(plan=SMALL) as server:
        for path in theirs.iterdir():
            upload_by_another(server, path)
        ended = run(media, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert ended.exit_code == 3, ended.stderr
        assert ended.seconds < 8
        assert "storage is full" in ended.summary["reason"]
        assert "pipeline files" in ended.summary["reason"]
        assert ended.summary["errors"] == {}
        assert deleted(server) == set()
        assert "generate" not in server.ledger()["calls"]


def test_storage_filled_by_others_in_part_is_shared(media: Path, tmp_path: Path) -> None:
    """Four of six megabytes are another's: the run goes through the other two, deleting only what it uploaded."""
    theirs = megabytes(tmp_path / "theirs", 4)
    with service(plan=SMALL) as server:
        names = {upload_by_another(server, path) for path in theirs.iterdir()}
        ended = run(media, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert deleted(server)
        assert not deleted(server) & names


def test_space_that_never_comes_ends_the_run_after_the_configured_wait(media: Path, tmp_path: Path) -> None:
    """While it waits for space, what was uploaded is answered; then exit 3, nothing failed."""
    with service(fault("429_storage", route="upload_start", after=3)) as server:
        settings = ("--via", "files", "--set", "upload.storage_wait_seconds=1")
        ended = run(media, tmp_path / "run", *settings, base_url=server.base_url)
        assert ended.exit_code == 3, ended.stderr
        assert ended.seconds < 15
        assert ended.summary["errors"] == {}
        assert server.ledger()["paid_answers"] == len(by_key(tmp_path / "run")) == 3


def test_a_signal_while_files_are_freed_drains(media: Path, tmp_path: Path) -> None:
    """With ``keep = false`` a deletion that the drain meets is no bug: the exit code is the signal's."""
    with service(plan="[latency]\ngenerate = 0.2\nfiles = 0.3") as server:
        arguments = ("--via", "files", "--set", "upload.keep=false", "--concurrency", 2)
        with started(media, tmp_path / "run", *arguments, base_url=server.base_url) as process:
            wait_until(lambda: server.ledger()["paid_answers"] >= 6)
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=30)
        assert process.returncode == 143, stderr
        assert len(by_key(tmp_path / "run")) == server.ledger()["paid_answers"] < 20
