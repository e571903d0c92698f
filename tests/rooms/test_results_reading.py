"""results.jsonl read from its end: every ended line, wherever the chunks cut it."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Failure
from pipeline.ledger.api import Intent
from pipeline.ledger.peek import doubts
from pipeline.results import reading
from pipeline.results.reading import lines_backwards, standing
from tests.rooms.run_folders import NOW, commit, opened, outcome

CONTENT = st.lists(st.sampled_from([b"\n", b"a", b"bc", b"\xe2\x80\xa8"]), max_size=30).map(b"".join)


@given(CONTENT, st.integers(1, 9))
def test_lines_are_those_that_splitting_all_of_it_gives(content: bytes, chunk_bytes: int) -> None:
    """In the other order, and without what stands behind the last newline."""
    cuts = [*range(len(content), 0, -chunk_bytes), 0]
    chunks = [content[start:end] for end, start in pairwise(cuts)]
    assert list(reading._ended_lines(iter(chunks))) == content.split(b"\n")[-2::-1]


def test_a_file_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never all of it at once; none where there is none."""
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"first\n\nthird line\ntorn")
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4)
    assert list(lines_backwards(path)) == [b"third line", b"", b"first"]
    assert not list(lines_backwards(tmp_path / "none"))


async def test_standing_is_told_during_and_after_a_run(tmp_path: Path) -> None:
    """Counts are of current lines; calls that are out are in doubt only once no run goes on."""
    path = tmp_path / "run"
    look = partial(standing, path, doubts=doubts)
    async with opened(path) as folder:
        timeout = Failure(stage="generation", kind="timeout", message="", retryable=True)
        await commit(folder, outcome("a", failure=timeout), outcome("b", failure=timeout), outcome("a"))
        await folder.ledger.intend(Intent(key="out", attempt=1, started_at=NOW))
        now = await anyio.to_thread.run_sync(look)
        assert (now.run_is_on, now.succeeded, now.failed, now.retryable) == (True, 1, {"timeout": 1}, 1)
        assert (now.usage.total_tokens, now.in_doubt) == (10, [])
    assert (look().run_is_on, look().in_doubt) == (False, ["out"])
    with (path / "results.jsonl").open("ab") as file:  # a kill came between the line and its mark
        file.write(b'{"key":"out","status":"succeeded","backend":"gemini"}\n{"key":"torn')
    assert (look().succeeded, look().in_doubt) == (2, [])
    (path / "ledger.sqlite3").unlink()
    assert (look().succeeded, look().in_doubt) == (2, [])


def test_standing_of_an_empty_folder(tmp_path: Path) -> None:
    """A folder without results stands at nothing."""
    assert standing(tmp_path, doubts=doubts).succeeded == 0
