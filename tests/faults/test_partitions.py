"""The way to the service is cut in the middle of large uploads: they go on where they were."""

import hashlib
from pathlib import Path

from tests.faults.service import service, sparse_video
from tests.support.processes import by_key, run
from tests.support.proxy import Toxic, proxy

SIZE = 200_000_000
CHUNK = 8 * 1024 * 1024


def test_ten_cuts_in_a_large_upload_cost_a_chunk_each(tmp_path: Path) -> None:
    """Eight resets and two silences at random bytes of 200 MB: at most 8 MiB are sent again for each."""
    video = sparse_video(tmp_path / "media" / "large.mp4", SIZE)
    resets = Toxic("reset", "up", after_bytes=(1_000_000, 25_000_000), first=8)
    silences = Toxic("blackhole", "up", after_bytes=(2_000_000, 40_000_000), seconds=30, first=2, rate=0.5)
    with (
        service(plan='[processing_seconds]\n"video/*" = 0.1') as server,
        proxy(server.base_url, resets, silences, seed=2) as way,
    ):
        settings = ("--via", "files", "--set", "upload.timeout_seconds=1.5")
        ended = run(video.parent, tmp_path / "run", *settings, base_url=way.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert way.struck == {"reset": 8, "blackhole": 2}
        [upload] = server.ledger()["uploads"]
        assert way.sent_bytes["up"] <= SIZE + 10 * (CHUNK + 100_000)
    with video.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    assert upload["sha256"] == by_key(tmp_path / "run")["large.mp4"]["media"][0]["sha256"] == digest
    assert ended.summary["bytes_uploaded"] == SIZE


def test_an_upload_reply_that_never_comes_is_asked_for(tmp_path: Path) -> None:
    """The reply of the last chunk vanishes in silence: the file is found by asking, not by sending it again."""
    video = sparse_video(tmp_path / "media" / "a.mp4", 3 * CHUNK)
    silence = Toxic("blackhole", "down", after_bytes=(1800, 1800), seconds=30, first=1)
    with (
        service(plan='[processing_seconds]\n"video/*" = 0.1') as server,
        proxy(server.base_url, silence) as way,
    ):
        settings = ("--via", "files", "--set", "upload.timeout_seconds=1.5")
        ended = run(video.parent, tmp_path / "run", *settings, base_url=way.base_url)
        assert ended.exit_code == 0, ended.stderr
        assert way.struck == {"blackhole": 1}
        assert len(server.ledger()["uploads"]) == 1
        assert way.sent_bytes["up"] <= 4 * CHUNK + 100_000
