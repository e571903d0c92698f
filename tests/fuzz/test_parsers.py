"""Five parsers of foreign bytes raise nothing: over the committed corpus, and over what Hypothesis makes of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, TARGETS

KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_corpus(path: Path) -> None:
    """What once was hard is easy now."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_parser_has_a_corpus(name: str) -> None:
    """A target without seeds would be fuzzed in the dark."""
    assert len([path for path in KEPT if path.parent.name == name]) >= 5


def mutations(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """A seed with a piece cut out and something put in its place, from another seed or from anywhere."""
    pieces = st.one_of(
        st.binary(max_size=12),
        st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.sampled_from(seeds),
        st.sampled_from(WORDS),
        st.tuples(st.sampled_from(WORDS), st.integers(1, 1200)).map(lambda pair: pair[0] * pair[1]),
    )

    def put(seed: bytes, at: int, length: int, piece: bytes) -> bytes:
        return seed[:at] + piece + seed[at + length :]

    return st.builds(put, st.sampled_from(seeds), st.integers(0, 400), st.integers(0, 60), pieces)


WORDS = [
    b"[",
    b"{",
    b'{"a":',
    b"]",
    b"}",
    b'"',
    b"null",
    b"NaN",
    b"\\ud800",
    b"9",
    b"-",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"s",
]


@pytest.mark.parametrize(("name", "target"), TARGETS.items())
def test_nothing_is_raised(name: str, target: Callable[[bytes], None]) -> None:
    """Some hundred mutants of the corpus and as many pieces of noise."""
    seeds = [path.read_bytes()[:2000] for path in KEPT if path.parent.name == name]

    @settings(max_examples=250, database=None)
    @given(st.one_of(mutations(seeds), st.binary(max_size=300)))
    def search(data: bytes) -> None:
        target(data)

    search()
