"""The run folder is private, nothing is written through a link, and what lies there already is read with care."""

import os
import stat
from pathlib import Path

import pytest

from pipeline.report import jsonlog
from tests.security.hostile import ESCAPES, candidate, check, check_log
from tests.security.wire import Answer, liar
from tests.support.processes import pipeline, run


def modes(folder: Path) -> dict[str, int]:
    """The permission bits of every file."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_everything_is_private(media: Path, tmp_path: Path) -> None:
    """The folder is 0700 and every file 0600, also while a run is on, whatever the umask."""
    seen: dict[str, int] = {}

    def answer(method: str, _path: str, _body: bytes) -> Answer:
        seen.update(modes(tmp_path / "run"))
        return {"name": "models/gemini-3.8-flash"} if method == "GET" else candidate("x")

    before = os.umask(0)
    try:
        with liar(answer) as url:
            ended = run(media, tmp_path / "run", "--verbose", base_url=url)
            run(media, tmp_path / "run", "-p", "another", base_url=url)
    finally:
        os.umask(before)
    assert ended.exit_code == 0, ended.stderr
    seen |= modes(tmp_path / "run")
    assert {"results.jsonl", "ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm", "run.log"} <= seen.keys()
    assert {"run.lock", "summary.json", "superseded.jsonl"} <= seen.keys()
    assert {name: oct(mode) for name, mode in seen.items() if mode != 0o600} == {}
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_rotated_logs_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the rotation is 0600, whole lines in each, and no more than are kept."""
    monkeypatch.setattr(jsonlog, "ROTATE_BYTES", 500)
    before = os.umask(0)
    try:
        log = jsonlog.JsonLog(tmp_path / "run.log", secrets=(), verbose=True)
        for number in range(100):
            log.write("said", {"number": number, "text": ESCAPES})
        log.close()
    finally:
        os.umask(before)
    assert len(modes(tmp_path)) == jsonlog.KEPT_FILES + 1
    assert set(modes(tmp_path).values()) == {0o600}
    for path in tmp_path.iterdir():
        assert check_log(path)


@pytest.mark.parametrize("name", ["run.log", "results.jsonl", "ledger.sqlite3"])
def test_no_file_is_written_through_a_link(media: Path, tmp_path: Path, name: str) -> None:
    """A link in the run folder's place of a file ends the run with 5, and what it points to is untouched."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    ended = run(media, tmp_path / "run")
    check(ended)
    assert ended.exit_code == 5, ended.stderr
    assert (tmp_path / "precious").read_bytes() == b""


def test_a_folder_open_to_all_is_refused(media: Path, tmp_path: Path) -> None:
    """Exit 2 before anything is written to a folder that anybody may write to."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    ended = run(media, tmp_path / "run")
    check(ended)
    assert ended.exit_code == 2
    assert "chmod o-w" in ended.stderr
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("content", [b'{"source": "\xff"}', b"[" * 100_000])
def test_a_damaged_summary_is_no_bug(tmp_path: Path, content: bytes) -> None:
    """``status`` does without it."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "summary.json").write_bytes(content)
    (tmp_path / "run" / "results.jsonl").touch(0o600)
    told = pipeline("status", tmp_path / "run")
    check(told)
    assert told.exit_code == 0
