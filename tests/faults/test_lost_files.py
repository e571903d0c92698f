"""Remote files that vanish, expire, fail or never become ACTIVE, and uploads whose end is never told."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.service import error_of, fault, service
from tests.support import generated
from tests.support.processes import by_key, run


class Case(NamedTuple):
    """What a file meets, and what becomes of its item: the error's kind, or None for an answer."""

    fault: dict[str, Any]
    uploads: int
    kind: str | None = None
    stage: str = "activation"


CASES = {
    "gone": Case({"kind": "vanish", "attempt": 1}, 2),
    "gone_again": Case({"kind": "vanish"}, 2, "file_gone", "generation"),
    "not_active": Case({"kind": "400_not_active", "route": "generate", "attempt": [1, 2]}, 1),
    "odd_400": Case({"kind": "400_generic", "route": "generate", "attempt": 1}, 2),
    "odd_400s": Case({"kind": "400_generic", "route": "generate"}, 2, "invalid_request", "generation"),
    "failed": Case({"kind": "fail_processing", "first": 1}, 2),
    "failed_again": Case({"kind": "fail_processing"}, 2, "file_failed"),
    "stuck": Case({"kind": "stuck_processing", "first": 1}, 2),
    "stuck_again": Case({"kind": "stuck_processing"}, 2, "stuck_processing"),
    "unknown": Case({"kind": "unknown_state"}, 2, "stuck_processing"),
    "other_bytes": Case({"kind": "hash_wrong", "first": 1}, 2),
    "other_size": Case({"kind": "size_wrong", "first": 1}, 2),
    "other_type": Case({"kind": "mime_wrong"}, 3, "upload_failed", "upload"),
    "untold": Case({"kind": "lost_finalize", "attempt": 1}, 1),
    "cut": Case({"kind": "cut_upload", "attempt": 1}, 1),
    "cut_whole": Case({"kind": "cut_upload", "attempt": 1, "durable": False}, 1),
    "session_dead": Case({"kind": "404_empty", "route": "upload_chunk", "first": 1}, 1),
    "name_taken": Case({"kind": "409_exists", "route": "upload_start", "attempt": 1}, 1),
    "poll_500": Case({"kind": "500", "route": "file_get", "attempt": [1, 2]}, 1),
    "poll_500s": Case({"kind": "500", "route": "file_get"}, 1, "unavailable"),
    "well": Case({"kind": "503", "match": "nobody"}, 1),
}


class Seen(NamedTuple):
    """One run over a video for each case."""

    lines: dict[str, dict[str, Any]]
    uploads: list[dict[str, Any]]
    struck: dict[str, int]
    deleted: set[str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """The run; a file's name is what its fault matches."""
    path = tmp_path_factory.mktemp("lost")
    (path / "media").mkdir()
    for number, name in enumerate(CASES):
        (path / "media" / f"{name}.mp4").write_bytes(generated.video("mp4", number))
    faults = [fault(**{"match": f"{name}.mp4"} | case.fault) for name, case in CASES.items()]
    with service(*faults, plan='[processing_seconds]\n"video/*" = 0.3') as server:
        settings = ("--via", "files", "--set", "activation.deadline_seconds=4")
        ended = run(path / "media", path / "run", *settings, base_url=server.base_url)
        assert ended.exit_code == 1, ended.stderr
        ledger = server.ledger()
        deleted = {call["path"].partition("/v1beta/")[2] for call in server.calls() if call["route"] == "file_delete"}
        yield Seen(by_key(path / "run"), ledger["uploads"], ledger["faults"], deleted)


@pytest.mark.parametrize("name", CASES)
def test_a_file_in_trouble(seen: Seen, name: str) -> None:
    """The item succeeds, or fails with the stage and kind of the contract, after at most one upload more."""
    case, line = CASES[name], seen.lines[f"{name}.mp4"]
    if name != "well":
        assert seen.struck[case.fault["kind"]] >= 1
    if case.kind is None:
        assert line["status"] == "succeeded", line
    else:
        assert (line["status"], error_of(line)) == ("failed", (case.stage, case.kind))
    assert len([u for u in seen.uploads if u["displayName"].startswith(f"{name}.mp4 ")]) == case.uploads


@pytest.mark.parametrize("name", ["failed_again", "stuck_again", "other_type", "odd_400s"])
def test_useless_files_are_deleted(seen: Seen, name: str) -> None:
    """What the service can't process, holds wrongly or refuses doesn't fill the project's storage for two days."""
    names = {upload["name"] for upload in seen.uploads if upload["displayName"].startswith(f"{name}.mp4 ")}
    assert names <= seen.deleted


@pytest.mark.parametrize("each", [8, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_many_files_in_trouble_at_once(tmp_path: Path, each: int) -> None:
    """As many files vanish, fail or hang once, and as many always do: one upload more at most for each, no hostage."""
    troubles = {
        "vanish": ("gone", {"attempt": 1}, None),
        "fail_processing": ("failing", {}, "file_failed"),
        "stuck_processing": ("stuck", {}, "stuck_processing"),
    }
    for number in range(each):
        for offset, name in enumerate((*(word for word, _, _ in troubles.values()), "sound")):
            path = tmp_path / "media" / f"{name}_{number:03d}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(generated.image("PNG", 4 * number + offset, 32))
    faults = [fault(kind, match=f"{word}_", **more) for kind, (word, more, _) in troubles.items()]
    with service(*faults, plan='[processing_seconds]\n"image/*" = 0.2') as server:
        settings = ("--via", "files", "--set", "activation.deadline_seconds=3", "--set", "run.max_failed_share=1")
        ended = run(tmp_path / "media", tmp_path / "run", *settings, base_url=server.base_url)
        assert ended.exit_code == 1, ended.stderr
        uploads = Counter(upload["displayName"].split(".png")[0] for upload in server.ledger()["uploads"])
    found = by_key(tmp_path / "run")
    assert len(found) == 4 * each
    expected = {word: kind for word, _, kind in troubles.values()} | {"sound": None}
    for key, line in found.items():
        assert (line["error"] or {}).get("kind") == expected[key.partition("_")[0]], key
        assert uploads[key.removesuffix(".png")] == (1 if key.startswith("sound") else 2)


def test_expired_files_are_uploaded_again_once(tmp_path: Path) -> None:
    """Three days later nothing in the storage is counted on: each file is uploaded once more."""
    folder = generated.pictures(tmp_path / "media", 20)
    with service() as server:
        first = run(folder, tmp_path / "run", "--via", "files", base_url=server.base_url)
        assert first.exit_code == 0, first.stderr
        server.call("clock", {"advance_seconds": 72 * 3600})
        again = run(folder, tmp_path / "run", "--via", "files", "-p", "Again?", base_url=server.base_url)
        assert again.exit_code == 0, again.stderr
        ledger = server.ledger()
        assert len(ledger["uploads"]) == 40
        assert len({upload["sha256"] for upload in ledger["uploads"]}) == 20


def test_files_that_another_program_deleted_are_uploaded_again(tmp_path: Path) -> None:
    """The ledger still believes in the files of an earlier run: each costs one refusal and one upload."""
    folder = generated.pictures(tmp_path / "media", 20)
    with service() as server:
        run(folder, tmp_path / "run", "--via", "files", base_url=server.base_url)
        server.reset()  # everything stored is gone
        again = run(folder, tmp_path / "run", "--via", "files", "-p", "Again?", base_url=server.base_url)
        assert again.exit_code == 0, again.stderr
        ledger = server.ledger()
        assert len(ledger["uploads"]) == 20
        assert ledger["calls"]["generate"] == {"200": 20, "403": 20}
        assert all(line["status"] == "succeeded" for line in by_key(tmp_path / "run").values())
