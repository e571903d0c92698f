"""results.jsonl read from its end: every ended line, wherever the chunks cut it."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.results import reading
from pipeline.results.reading import lines_backwards

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
