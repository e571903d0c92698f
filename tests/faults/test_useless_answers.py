"""Answers of status 200 that are no use: each gets its status and kind, none is ever taken for a success."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.service import error_of, fault, manifest, service
from tests.support.processes import by_key, run

SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"]}


class Case(NamedTuple):
    """What the service answers to one row, always, and what becomes of the row."""

    status: str
    kind: str
    attempts: int
    fault: dict[str, Any]
    has_text: bool = True
    schema: bool = False


CASES = {
    "safety": Case("blocked", "safety", 1, {"kind": "finish"}),
    "blocklist": Case(
        "blocked", "blocklist", 1, {"kind": "finish", "reason": "BLOCKLIST", "text": False}, has_text=False
    ),
    "recitation": Case("blocked", "recitation", 2, {"kind": "finish", "reason": "RECITATION"}),
    "language": Case("blocked", "language", 2, {"kind": "finish", "reason": "LANGUAGE"}),
    "prompt": Case("blocked", "prohibited_content", 1, {"kind": "block_prompt"}, has_text=False),
    "cut": Case("failed", "truncated", 1, {"kind": "max_tokens"}),
    "all thought": Case("failed", "truncated", 1, {"kind": "max_tokens", "text": False}, has_text=False),
    "no parts": Case("failed", "empty", 3, {"kind": "no_parts"}, has_text=False),
    "thoughts only": Case("failed", "empty", 3, {"kind": "only_thoughts"}, has_text=False),
    "no candidates": Case("failed", "empty", 3, {"kind": "no_candidates"}, has_text=False),
    "malformed": Case("failed", "malformed_answer", 2, {"kind": "finish", "reason": "MALFORMED_RESPONSE"}),
    "of tomorrow": Case("failed", "unknown_finish", 1, {"kind": "unknown_finish"}),
    "not JSON": Case("failed", "invalid_output", 2, {"kind": "not_json_output"}, schema=True),
    "other JSON": Case("failed", "invalid_output", 2, {"kind": "invalid_json_output"}, schema=True),
}
ONCE = {
    "empty once": ("no_parts", 2),
    "recitation once": ("finish", 2),
    "other JSON once": ("invalid_json_output", 2),
    "two candidates": ("two_candidates", 1),
}
"""Rows whose first answer is useless, or merely odd, and how many attempts they take to succeed."""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    """The lines of one run in which every row meets its answer."""
    path = tmp_path_factory.mktemp("useless")
    faults = [fault(route="generate", match=f"<{name}>", **case.fault) for name, case in CASES.items()]
    faults += [
        fault(kind, route="generate", match=f"<{name}>", attempt=1, reason="RECITATION" if kind == "finish" else "")
        for name, (kind, _) in ONCE.items()
    ]
    rows = {f"<{name}>": {"schema": SCHEMA} if case.schema else {} for name, case in CASES.items()}
    rows |= {f"<{name}>": {"schema": SCHEMA} if "JSON" in name else {} for name in ONCE}
    with service(*faults) as server:
        ended = run(manifest(path / "rows.jsonl", rows), path / "run", base_url=server.base_url)
        assert ended.exit_code == 1, ended.stderr
        found = by_key(path / "run")
        assert ended.summary["items"]["blocked"] == sum(case.status == "blocked" for case in CASES.values())
        assert ended.summary["requests"] == server.ledger()["paid_answers"]
        assert sum(line["usage"]["total_tokens"] for line in found.values()) == ended.summary["usage"]["total_tokens"]
        yield found


@pytest.mark.parametrize("name", CASES)
def test_a_useless_answer_has_its_status_and_kind(lines: dict[str, dict[str, Any]], name: str) -> None:
    """Status, stage, kind and attempts are the contract's, the text is kept, and the failure is the input's."""
    line, case = lines[f"<{name}>"], CASES[name]
    assert (line["status"], error_of(line), line["attempts"]) == (case.status, ("generation", case.kind), case.attempts)
    assert bool(line.get("text")) == case.has_text
    assert not line["error"]["retryable"]
    assert line.get("data") is None
    assert line["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("name", ONCE)
def test_an_answer_that_is_useless_once_is_asked_for_again(lines: dict[str, dict[str, Any]], name: str) -> None:
    """The second answer counts, and all attempts' tokens are on the line."""
    line = lines[f"<{name}>"]
    assert (line["status"], line["attempts"]) == ("succeeded", ONCE[name][1])
    assert line["text"]


def test_patterns_of_a_schema_are_applied(tmp_path: Path) -> None:
    """In a process of its own, which the real command starts: one answer conforms, the other doesn't."""
    schema = {
        "type": "object",
        "properties": {"code": {"type": "string", "pattern": "^[a-f]{4}$"}},
        "required": ["code"],
    }
    rows = manifest(tmp_path / "rows.jsonl", {"<fits>": {"schema": schema}, "<other>": {"schema": schema}})
    with service(fault("invalid_json_output", match="<other>")) as server:
        ended = run(rows, tmp_path / "run", base_url=server.base_url)
    assert ended.exit_code == 1, ended.stderr
    lines = by_key(tmp_path / "run")
    assert lines["<fits>"]["status"] == "succeeded"
    assert len(lines["<fits>"]["data"]["code"]) == 4
    assert error_of(lines["<other>"]) == ("generation", "invalid_output")
