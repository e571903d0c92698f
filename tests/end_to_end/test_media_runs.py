"""The main job over real media, end to end: right bytes, right lines, nothing twice."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.support import generated
from tests.support.processes import by_key, emulator, measured_run, pipeline, run

MEDIA = int(os.environ.get("PIPELINE_TEST_MEDIA", "320"))
"""How many media the large folder has; the full form is 2,000."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of every image type and two kinds of video, no two alike."""
    return generated.folder(tmp_path_factory.mktemp("media"), MEDIA)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file by its key."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("via", ["files", "auto"])
def test_every_line_is_about_the_bytes_that_the_server_saw(media: Path, tmp_path: Path, via: str) -> None:
    """Each line's hash is the file's and the server's; a second run sends nothing."""
    expected = hashes(media)
    with emulator('describe = "brief"\n[processing_seconds]\n"video/*" = 0.3') as server:
        first = run(media, tmp_path / "run", "--via", via, base_url=server.base_url)
        assert first.exit_code == 0, first.stderr
        found = by_key(tmp_path / "run")
        assert {key: line["media"][0]["sha256"] for key, line in found.items()} == expected
        ledger = server.ledger()
        assert {item["media"][0]: item["answers"] for item in ledger["paid"]} == dict.fromkeys(expected.values(), 1)
        if via == "files":
            assert {upload["sha256"] for upload in ledger["uploads"]} == set(expected.values())
            assert all(line["media"][0]["via"] == "files" for line in found.values())
        for key, line in found.items():
            assert line["media"][0]["sha256"] in line["text"], key
        before = server.ledger()["calls_total"]
        second = run(media, tmp_path / "run", "--via", via, base_url=server.base_url)
        assert (second.exit_code, second.summary["requests"]) == (0, 0)
        assert second.summary["items"]["unchanged"] == MEDIA
        assert server.ledger()["calls_total"] == before


def test_3600_images_go_in_order_and_3601_fail_alone(tmp_path: Path) -> None:
    """Exactly the limit goes through in the row's order; one more fails that item and no other."""
    generated.pictures(tmp_path / "media", 3601, side=24)
    names = [f"media/{n:05d}.png" for n in range(3601)]
    rows = [{"key": "full", "media": names[:3600]}, {"key": "over", "media": names}, {"key": "one", "media": names[:1]}]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with emulator('describe = "brief"') as server:
        # at the default resolution so many images would exceed the context
        low = ("--set", "generation.config.mediaResolution=MEDIA_RESOLUTION_LOW")
        ended = run(manifest, tmp_path / "run", "--via", "files", *low, base_url=server.base_url)
        assert ended.exit_code == 1
        found = by_key(tmp_path / "run")
        assert {key: line["status"] for key, line in found.items()} == {
            "full": "succeeded",
            "over": "failed",
            "one": "succeeded",
        }
        assert found["over"]["error"]["kind"] == "too_many_images"
        [paid] = [item for item in server.ledger()["paid"] if len(item["media"]) == 3600]
        assert paid["media"] == [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names[:3600]]
        assert server.ledger()["largest_body_bytes"] <= 20 * 1024 * 1024


def test_inline_media_that_would_not_fit_travel_by_file(tmp_path: Path) -> None:
    """Under ``--via inline`` no body exceeds 20 MiB: what would is uploaded instead."""
    folder = tmp_path / "media"
    folder.mkdir()
    picture = generated.image("JPEG", 1)
    for name, size in (("fits.jpg", 14_000_000), ("barely.jpg", 15_728_640), ("not.jpg", 16_000_000)):
        (folder / name).write_bytes(picture + os.urandom(size - len(picture)))
    with emulator('describe = "brief"') as server:
        ended = run(folder, tmp_path / "run", "--via", "inline", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        via = {key: line["media"][0]["via"] for key, line in by_key(tmp_path / "run").items()}
        assert via == {"fits.jpg": "inline", "barely.jpg": "files", "not.jpg": "files"}
        assert server.ledger()["bytes_received"]["generate"] < 20 * 1024 * 1024


def test_a_huge_file_costs_a_chunk_of_memory_and_a_cut_costs_a_chunk_again(tmp_path: Path) -> None:
    """A sparse file of 1.9 GB uploads in under 150 MB, and each of ten cuts re-sends at most one chunk."""
    folder = tmp_path / "media"
    folder.mkdir()
    size = int(float(os.environ.get("PIPELINE_TEST_HUGE_MB", "1900")) * 1_000_000)
    with (folder / "huge.mp4").open("wb") as file:
        file.write(generated.video("mp4", 1))
        file.truncate(size)
    plan = """
        describe = "brief"
        [processing_seconds]
        "video/*" = 0.0
        [[fault]]
        kind = "cut_upload"
        attempt = 1
        rate = 0.05
        first = 10
    """
    with emulator(plan) as server:
        ended = measured_run(folder, tmp_path / "run", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        cuts = server.ledger()["faults"].get("cut_upload", 0)
        sent = server.ledger()["bytes_received"]["upload_chunk"]
    assert cuts >= min(10, size // 190_000_000)
    assert ended.peak_bytes < 150_000_000
    assert sent <= size + cuts * 8 * 1024 * 1024


def test_forty_videos_cost_few_state_calls_and_none_is_used_early(tmp_path: Path) -> None:
    """Forty videos that stay PROCESSING for 5 s cost fewer than 120 state calls; none is sent before ACTIVE."""
    folder = tmp_path / "media"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.mp4").write_bytes(generated.video("mp4", number))
    with emulator('describe = "brief"\n[processing_seconds]\n"video/*" = 5.0') as server:
        ended = run(folder, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert ended.exit_code == 0, ended.stderr
        ledger = server.ledger()
    assert ledger["state_calls"] < 120
    assert ledger["calls"]["generate"] == {"200": 40}
    assert ended.summary["wall_seconds"] < 20


def test_the_files_command_sees_what_was_uploaded(tmp_path: Path) -> None:
    """``pipeline files`` uploads, lists, shows and deletes by hand."""
    picture = tmp_path / "a.png"
    picture.write_bytes(generated.image("PNG", 7))
    with emulator() as server:
        where = ["--base-url", server.base_url]
        uploaded = pipeline("files", "upload", picture, "--json", *where)
        assert uploaded.exit_code == 0, uploaded.stderr
        name = uploaded.summary["name"]
        assert name in pipeline("files", "list", *where).stdout
        assert pipeline("files", "get", name, "--json", *where).summary["state"] == "ACTIVE"
        assert pipeline("files", "delete", name, *where).exit_code == 0
        assert pipeline("files", "list", *where).stdout == ""
        gone = pipeline("files", "get", name, *where)
        assert gone.exit_code == 1
        assert "Traceback" not in gone.stderr
