"""Media that are cut, changed or deleted while they are uploaded: noticed soon, never answered about."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.service import error_of, service, sparse_video, started, wait_until
from tests.support import generated
from tests.support.processes import by_key, lines, run
from tests.support.proxy import Toxic, proxy

SIZE = 24 * 1024 * 1024


def truncate(path: Path) -> None:
    """Half of it is gone."""
    os.truncate(path, SIZE // 2)


def overwrite(path: Path) -> None:
    """Same length, other bytes at the end."""
    with path.open("r+b") as file:
        file.seek(SIZE - 1000)
        file.write(b"x" * 1000)


def overwrite_secretly(path: Path) -> None:
    """Same length, other bytes, and the time of the last change set back."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path) -> None:
    """Another file takes its name; the open one is whole, so that its bytes may still be sent."""
    path.with_suffix(".new").write_bytes(generated.video("mp4", 2))
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [truncate, overwrite, overwrite_secretly, Path.unlink, replace])
def test_a_change_while_uploading(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The item fails as source_changed within 5 s, or is answered about exactly the bytes that its line names."""
    video = sparse_video(tmp_path / "media" / "a.mp4", SIZE)
    before = hashlib.sha256(video.read_bytes()).hexdigest()
    slow = Toxic("slow", "up", bytes_per_second=12_000_000)
    with (
        service(plan='[processing_seconds]\n"video/*" = 0.1') as server,
        proxy(server.base_url, slow) as way,
    ):
        with started(video.parent, tmp_path / "run", "--via", "files", base_url=way.base_url) as process:
            wait_until(lambda: server.ledger()["bytes_received"].get("upload_chunk", 0) >= SIZE // 3)
            change(video)
            began = time.monotonic()
            _, stderr = process.communicate(timeout=60)
            took = time.monotonic() - began
        [line] = lines(tmp_path / "run")
        if change in (Path.unlink, replace):  # the open file is still what it was
            assert process.returncode == 0, stderr
            assert line["media"][0]["sha256"] == server.ledger()["uploads"][0]["sha256"] == before
        else:
            assert process.returncode == 1, stderr
            assert error_of(line) == ("upload", "source_changed")
            assert not line["error"]["retryable"]
            assert server.ledger()["paid_answers"] == 0
            assert took < 5
    if change is truncate:
        video.write_bytes(generated.video("mp4", 3))
        with service() as server:
            again = run(video.parent, tmp_path / "run", base_url=server.base_url)
        assert again.exit_code == 0, again.stderr
        assert by_key(tmp_path / "run")["a.mp4"]["status"] == "succeeded"


def test_inline_media_that_change_before_they_are_sent(tmp_path: Path) -> None:
    """While items wait for their turn their pictures are replaced or deleted: each fails, none is mixed up."""
    folder = generated.pictures(tmp_path / "media", 14)
    with service(plan="[latency]\ngenerate = 0.15") as server:
        with started(folder, tmp_path / "run", "--concurrency", 1, base_url=server.base_url) as process:
            wait_until(lambda: server.ledger()["paid_answers"] >= 3)
            (folder / "00012.png").write_bytes(generated.image("PNG", 999))
            away = (folder / "00013.png").rename(tmp_path / "00013.png")
            _, stderr = process.communicate(timeout=60)
        found = by_key(tmp_path / "run")
        paid = {item["media"][0] for item in server.ledger()["paid"]}
    assert process.returncode == 1, stderr
    assert error_of(found["00012.png"]) == ("generation", "source_changed")
    assert error_of(found["00013.png"]) == ("generation", "missing_file")
    assert {line["status"] for key, line in found.items() if key not in ("00012.png", "00013.png")} == {"succeeded"}
    assert {line["media"][0]["sha256"] for line in found.values() if line["status"] == "succeeded"} == paid
    assert found["00013.png"]["fingerprint"] is None
    away.rename(folder / "00013.png")  # a disk that was away for a while
    with service() as server:
        again = run(folder, tmp_path / "run", base_url=server.base_url)
        assert (again.exit_code, server.ledger()["paid_answers"]) == (0, 2), again.stderr
