"""Checking and mending a run folder: what is found, where, and that mending loses no byte."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import RunLocked, StopForHuman
from pipeline.ledger import peek
from pipeline.results import check
from pipeline.results.check import Findings, LineCheck, lines_of
from pipeline.results.verify import Verified, hold
from tests.rooms.run_folders import OPEN_LEDGER, commit, keys, opened, outcome, run, texts

KEYS = "abcde"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A run folder of five lines, all well."""
    await run(tmp_path / "run", *(outcome(key) for key in KEYS))
    return tmp_path / "run"


async def verified(path: Path, *, repair: bool = False) -> Verified:
    """Check; with ``repair`` mend and check again."""
    async with hold(path, look=peek.look, stamp=lambda: "now") as verifier:
        found = verifier.check()
        if repair:
            await verifier.repair(found, open_ledger=OPEN_LEDGER, stamp="then")
            return verifier.check()
        return found


def kinds(found: Verified) -> set[str]:
    return {problem.kind for problem in found.problems}


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Change the lines of results.jsonl in place; what it holds then."""
    file = path / "results.jsonl"
    content = b"".join(change(file.read_bytes().splitlines(keepends=True)))
    file.write_bytes(content)
    return content


async def test_a_sound_folder_is_left_as_it_is(path: Path) -> None:
    """Nothing is found, and the check adds and changes no file."""
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    found = await verified(path)
    assert (found.problems, found.lines, found.keys) == ([], 5, 5)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


DAMAGES: dict[str, tuple[Callable[[list[bytes]], list[bytes]], set[str], str]] = {
    "middle": (lambda ls: [*ls[:2], b"\0" + ls[2][1:], *ls[3:]], {"damaged_line", "ledger_ahead"}, "abde"),
    "empty line": (lambda ls: [*ls[:2], b"\n", *ls[2:]], {"damaged_line"}, "abcde"),
    "two on one": (lambda ls: [ls[0][:-1] + ls[1], *ls[2:]], {"damaged_line", "ledger_ahead"}, "cde"),
    "torn": (lambda ls: [*ls[:4], ls[4][:-9]], {"torn_tail", "ledger_ahead"}, "abcd"),
    "no newline": (lambda ls: [*ls[:4], ls[4][:-1]], {"no_newline"}, "abcde"),
    "twice": (lambda ls: [*ls, ls[1]], {"duplicate_key", "ledger_behind"}, "acdeb"),
    "gone": (lambda ls: ls[1:], {"ledger_ahead", "ledger_differs"}, "bcde"),
    "changed": (lambda ls: [ls[0].replace(b"v1:a", b"v1:A"), *ls[1:]], {"ledger_differs"}, "abcde"),
    "swapped": (lambda ls: [ls[1], ls[0], *ls[2:]], {"ledger_differs"}, "bacde"),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_and_mended(path: Path, name: str) -> None:
    """Each kind is told; afterwards every whole line is there once, and all bytes of lost lines are in the original."""
    change, expected, left = DAMAGES[name]
    damaged = edit(path, change)
    found = await verified(path)
    assert expected <= kinds(found)
    assert (path / "results.jsonl").read_bytes() == damaged, "a check without repair changed something"
    assert (await verified(path, repair=True)).problems == []
    assert sorted(keys(path)) == sorted(left)
    originals = [file.read_bytes() for file in path.glob("results.jsonl.damaged-*")]
    assert originals == ([damaged] if {"damaged_line", "torn_tail"} & expected else [])
    async with opened(path) as folder:
        assert not folder.recovered


async def test_problems_name_the_line_and_its_place(path: Path) -> None:
    """The line counts from 1, the offset is in bytes."""
    damaged = edit(path, lambda ls: [ls[0], ls[1], b"x" * 7 + b"\n", *ls[2:], b"{"])
    by_kind = {problem.kind: problem for problem in (await verified(path)).problems}
    middle, tail = by_kind["damaged_line"], by_kind["torn_tail"]
    assert (middle.line, middle.offset) == (3, damaged.index(b"xxxxxxx"))
    assert (tail.line, tail.offset) == (7, len(damaged) - 1)
    assert "line 3" in middle.sentence


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda file: file.unlink(), "ledger_unusable"),
        (lambda file: file.write_bytes(b"no database " * 1000), "ledger_unusable"),
        (lambda file: file.write_bytes(b""), "ledger_unusable"),
        (lambda file: file.write_bytes(file.with_name("older").read_bytes()), "ledger_behind"),
    ],
)
async def test_a_ledger_that_does_not_agree_is_rebuilt(path: Path, change: Callable[[Path], object], kind: str) -> None:
    """Absent, corrupt, empty or older: told, and in line after the repair, without touching results.jsonl."""
    (path / "older").write_bytes((path / "ledger.sqlite3").read_bytes())
    await run(path, outcome("f"))
    before = (path / "results.jsonl").read_bytes()
    change(path / "ledger.sqlite3")
    assert kind in kinds(await verified(path))
    assert (await verified(path, repair=True)).problems == []
    assert (path / "results.jsonl").read_bytes() == before


async def test_several_lines_of_a_key_become_the_last(path: Path) -> None:
    """What a kill leaves behind is told, and compacted as the end of a run does it."""
    async with opened(path) as folder:
        await commit(folder, outcome("b", "newer"))
    assert kinds(await verified(path)) == {"duplicate_key"}
    assert (await verified(path, repair=True)).problems == []
    assert texts(path)["b"] == "newer"
    assert json.loads((path / "superseded.jsonl").read_bytes())["text"] == "an answer"


async def test_salvaged_answers_are_told_and_taken_in(path: Path) -> None:
    """Lines that a full disk kept out of results.jsonl are part of it after a repair."""
    first, *rest = (path / "results.jsonl").read_bytes().splitlines(keepends=True)
    (path / "results.jsonl").write_bytes(b"".join(rest))
    (path / "salvage-1.jsonl").write_bytes(first)
    assert "salvage" in kinds(await verified(path))
    assert (await verified(path, repair=True)).problems == []
    assert sorted(keys(path)) == list(KEYS)


async def test_modes_are_told_and_mended(path: Path) -> None:
    """A file that others may read and a folder that anybody may write to are closed again."""
    (path / "results.jsonl").chmod(0o644)
    path.chmod(0o777)
    assert kinds(await verified(path)) == {"mode", "open_to_all"}
    assert (await verified(path, repair=True)).problems == []


async def test_results_that_are_gone_can_not_be_rebuilt(path: Path) -> None:
    """The ledger alone has no answer: nothing is made in the place of results.jsonl."""
    (path / "results.jsonl").unlink()
    with pytest.raises(StopForHuman, match="from a copy"):
        await verified(path, repair=True)
    assert not (path / "results.jsonl").exists()


async def test_a_folder_that_a_run_holds_is_refused(path: Path) -> None:
    """Neither checked nor mended while a run is on."""
    async with opened(path):
        with pytest.raises(RunLocked):
            await verified(path)


def test_of_many_problems_the_first_are_shown_and_the_rest_counted() -> None:
    """A file of nothing but damage gives a short report."""
    findings = Findings()
    lines = LineCheck(findings)
    for line in lines_of([b"x\n" * 1000]):
        lines.see(line)
    assert len(findings.problems()) == check.SHOWN_OF_A_KIND + 1
    assert findings.problems()[-1].sentence == "980 more of damaged_line"


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
async def test_lines_do_not_depend_on_how_the_file_is_read(path: Path, size: int) -> None:
    """Chunks of any size give the same lines, damaged and torn ones included."""
    content = edit(path, lambda ls: [ls[0], b"\xff\n", *ls[1:], b'{"key"'])
    chunks = [content[at : at + size] for at in range(0, len(content), size)]
    assert list(lines_of(chunks)) == list(lines_of([content]))
    assert sum(line.size_bytes for line in lines_of(chunks)) == len(content)
