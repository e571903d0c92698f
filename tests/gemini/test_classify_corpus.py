"""Every recorded signal gets its class."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gemini.api import Reply, Route
from pipeline.gemini.classify import classify
from pipeline.gemini.signals import Action
from pipeline.gemini.table import TABLE
from pipeline.gemini.wire import FaultKind, TransportFault

CORPUS = Path(__file__).parent.parent / "corpus" / "signals" / "signals.jsonl"
SIGNALS = [json.loads(line) for line in CORPUS.read_text().splitlines()]


def seen_of(row: dict) -> Reply | TransportFault:
    if "fault" in row:
        return TransportFault(FaultKind(row["fault"]))
    return Reply(status=row["status"], headers=row["headers"], body=row["body"].encode())


def test_corpus_is_large_enough() -> None:
    """The bar is sixty recorded bodies, each under a name of its own."""
    assert len(SIGNALS) >= 60
    assert len({row["name"] for row in SIGNALS}) == len(SIGNALS)


@pytest.mark.parametrize("row", SIGNALS, ids=lambda row: row["name"])
def test_signal_has_its_class(row: dict) -> None:
    """The table gives each recorded signal the recorded action, kind and flags."""
    verdict = classify(Route(row["route"]), seen_of(row))
    assert verdict.action is Action(row["action"])
    if row["kind"] is not None:
        assert verdict.kind == row["kind"]
    for flag, attribute in (("ambiguous", "ambiguous"), ("outage", "is_outage"), ("rewritten", "rewritten")):
        if flag in row:
            assert getattr(verdict, attribute) is row[flag], flag
    if "wait" in row:
        delay = verdict.signal.error.delay
        assert (delay.seconds if delay else None) == (
            row["wait"] if row["wait"] is None else pytest.approx(row["wait"])
        )
    if "files" in row:
        assert list(verdict.signal.named_files()) == row["files"]
    assert verdict.message.isprintable()


def test_every_row_of_the_table_is_met_by_the_corpus() -> None:
    """A row that no recorded signal reaches would be dead or untested."""
    met = {classify(Route(row["route"]), seen_of(row)).rule for row in SIGNALS}
    assert {row.rule for row in TABLE} <= met


def test_redirect_names_only_the_origin() -> None:
    """A Location may carry secrets; its origin is enough to act upon."""
    verdict = classify(
        Route.GENERATE, Reply(status=302, headers={"location": "https://evil.example.com/a?key=S"}, body=b"")
    )
    assert "https://evil.example.com:443" in verdict.message
    assert "key=S" not in verdict.message


@given(
    route=st.sampled_from(list(Route)),
    status=st.integers(min_value=100, max_value=999),
    headers=st.dictionaries(
        st.sampled_from(["location", "x-goog-upload-url", "x-goog-upload-status"]), st.text(max_size=20)
    ),
    body=st.binary(max_size=200),
)
def test_any_reply_is_classified(route: Route, status: int, headers: dict[str, str], body: bytes) -> None:
    """No reply whatever makes the table raise or leaves it without an action."""
    verdict = classify(route, Reply(status=status, headers=headers, body=body))
    assert verdict.action in Action
    assert verdict.message
