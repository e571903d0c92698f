"""Compaction: each key keeps its last line, and a crash at any step loses none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.results import compaction, durable
from pipeline.results.compaction import compact, gaps
from tests.rooms.run_folders import commit, keys, known, opened, outcome, run, texts, wrong_row


async def test_compaction_keeps_the_last_line_of_each_key_in_order(tmp_path: Path) -> None:
    """Replaced lines move to superseded.jsonl, the ledger follows, and there is nothing to do afterwards."""
    path = tmp_path / "run"
    async with opened(path) as folder:
        await commit(folder, outcome("a", "1"), outcome("b", "1"), outcome("a", "2"), outcome("c", "1"))
        assert await compact(folder, source_was_read=True)
        await commit(folder, outcome("d", "1"))
        assert not await compact(folder, source_was_read=True)
    assert keys(path) == ["b", "a", "c", "d"]
    assert texts(path)["a"] == "2"
    assert [json.loads(line)["text"] for line in (path / "superseded.jsonl").read_text().splitlines()] == ["1"]
    async with opened(path) as folder:
        assert not folder.recovered


async def test_a_crash_before_the_ledger_hears_of_a_compaction(tmp_path: Path) -> None:
    """With the ledger of before the compaction, the new file is found out by its inode and read."""
    path = tmp_path / "run"
    async with opened(path) as folder:
        await commit(folder, outcome("a", "1"), outcome("b"), outcome("a", "2"))
    before = (path / "ledger.sqlite3").read_bytes()
    await run(path)
    (path / "ledger.sqlite3").write_bytes(before)
    async with opened(path) as folder:
        assert folder.recovered
        assert await known(folder, "a", "b") == [True, True]
        assert not await compact(folder, source_was_read=True)
    assert texts(path) == {"b": "an answer", "a": "2"}


async def test_lines_of_wrong_rows_vanish_when_source_was_read(tmp_path: Path) -> None:
    """They go when a later run read SOURCE to its end without meeting them, and stay otherwise."""
    path = tmp_path / "run"
    await run(path, outcome("a"), wrong_row("line:2"), wrong_row("a#line:3"))
    assert keys(path) == ["a", "line:2", "a#line:3"]
    async with opened(path) as folder:
        await commit(folder, wrong_row("a#line:3"))
        await compact(folder, source_was_read=False)
    assert keys(path) == ["a", "line:2", "a#line:3"]
    async with opened(path) as folder:
        await known(folder, "line:2")
        await compact(folder, source_was_read=True)
    assert keys(path) == ["a", "line:2"]


def failing_steps() -> Iterator[tuple[str, int]]:
    """Every call into the system that a compaction makes, by name and turn."""
    for name, turns in {"write_all": 2, "sync_data": 2, "sync_folder": 2, "replace": 1, "lock": 1}.items():
        for turn in range(turns):
            yield name, turn


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "turn"), list(failing_steps()))
async def test_a_crash_at_each_step_of_compaction_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, turn: int, when: str
) -> None:
    """Die just before or after any step: the next run finds each key's last line, and compacts again."""

    class Crash(BaseException):
        pass

    path = tmp_path / "run"
    expected = {"a": "2", "b": "1", "c": "1"}

    with pytest.raises(Crash):  # noqa: PT012
        async with opened(path) as folder:
            await commit(folder, outcome("a", "1"), outcome("b", "1"), outcome("a", "2"), outcome("c", "1"))
            owner: Any = {"replace": Path, "lock": compaction.results_file}.get(step, durable)
            real, calls = getattr(owner, step), iter(range(100))

            def crashing(*arguments: Any) -> Any:
                now = next(calls) == turn
                if now and when == "before":
                    raise Crash
                result = real(*arguments)
                if now:
                    raise Crash
                return result

            monkeypatch.setattr(owner, step, crashing)
            await compact(folder, source_was_read=True)
    monkeypatch.undo()
    assert texts(path) == expected
    async with opened(path) as folder:
        assert await known(folder, "a", "b", "c") == [True] * 3
        await compact(folder, source_was_read=False)
    assert sorted(keys(path)) == ["a", "b", "c"]
    assert texts(path) == expected
    assert not list(path.glob("*.compacting"))


@pytest.mark.parametrize(
    ("extents", "left_out"), [([], [(0, 9)]), ([(0, 9)], []), ([(2, 4), (6, 9)], [(0, 2), (4, 6)])]
)
def test_gaps(extents: list[tuple[int, int]], left_out: list[tuple[int, int]]) -> None:
    """What extents leave out of nine bytes."""
    assert gaps(extents, 9) == left_out
