"""A run folder against everything that nights bring: edited manifests, kills, expired uploads, two runs at once.

Each run is a process of its own, really killed, against a service in memory (``service.py``) that knows whom it
answered. The model beside it knows only rows, and what results.jsonl said before a run.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline.errors import ExitCode
from pipeline.spec import GenerationSpec, OnChange, RunSpec, Selection, SourceSpec, UploadSpec
from tests.crash.forked import Ended, Run
from tests.crash.service import REFUSED, UNLUCKY, answer_to, read_journal
from tests.support import generated

KEYS = st.sampled_from("abcdef")
PROMPTS = st.sampled_from(["p", "q", "r", REFUSED, UNLUCKY])
MEDIA = ["one.png", "two.png"]
MOMENTS = st.integers(1, 90)


class Row(NamedTuple):
    """A row of the manifest."""

    key: str
    prompt: str
    medium: str | None


Question = tuple[str, tuple[str, ...]]
"""The prompt's hash, and the hashes of the media."""


class RunFolderMachine(RuleBasedStateMachine):
    """The model."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.home = Path(tempfile.mkdtemp(dir=memory))
        self.output, self.journal = self.home / "run", self.home / "journal"
        self.rows: list[Row] = []
        self.later = timedelta()
        self.lost: set[str] = set()
        """Keys whose last call was billed, and has no line."""
        for seed, name in enumerate(MEDIA):
            (self.home / name).write_bytes(generated.image("PNG", seed, 24))

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    # the world changes

    @initialize(rows=st.lists(st.tuples(PROMPTS, st.sampled_from([None, *MEDIA])), min_size=1, max_size=5))
    def begin(self, rows: list[tuple[str, str | None]]) -> None:
        """A manifest of a few rows."""
        self.rows = [Row(key, *row) for key, row in zip("abcdef", rows, strict=False)]

    @rule(key=KEYS, prompt=PROMPTS, medium=st.sampled_from([None, *MEDIA]))
    def add_row(self, key: str, prompt: str, medium: str | None) -> None:
        """Perhaps with a key that another row has."""
        self.rows.append(Row(key, prompt, medium))

    @precondition(lambda self: len(self.rows) > 1)
    @rule(number=st.integers(0, 99))
    def remove_row(self, number: int) -> None:
        """One row goes."""
        del self.rows[number % len(self.rows)]

    @rule(number=st.integers(0, 99), prompt=PROMPTS)
    def change_prompt(self, number: int, prompt: str) -> None:
        """One row asks something else."""
        at = number % len(self.rows)
        self.rows[at] = self.rows[at]._replace(prompt=prompt)

    @rule()
    def reverse_rows(self) -> None:
        """The order of rows means nothing, except among rows of one key."""
        self.rows.reverse()

    @rule(name=st.sampled_from(MEDIA), seed=st.integers(2, 4))
    def change_medium(self, name: str, seed: int) -> None:
        """Other bytes under the same name, or the same bytes once more."""
        (self.home / name).write_bytes(generated.image("PNG", seed, 24))

    @rule()
    def three_days_pass(self) -> None:
        """Uploads expire."""
        self.later += timedelta(days=3)

    # nights

    @rule(on_change=st.sampled_from(["run", "keep", "stop"]), retry_failed=st.booleans())
    def night(self, on_change: OnChange, retry_failed: bool) -> None:
        """A run that nothing interrupts."""
        before, journalled = self._current(), len(self._events())
        asked = self._to_be_asked(before, on_change, retry_failed=retry_failed)
        stops = on_change == "stop" and bool(self._changed(before))
        ended = self._start(on_change, retry_failed=retry_failed).end()
        self._judge_calls(journalled, set() if stops else asked, complete=True)
        self._judge_end(ended, before, asked, stops=stops)

    @rule(moment=MOMENTS)
    def night_with_a_kill(self, moment: int) -> None:
        """A run that dies at a moment, if it lasts so long."""
        before, journalled = self._current(), len(self._events())
        asked = self._to_be_asked(before, "run", retry_failed=False)
        ended = self._start(kill_at=moment).end()
        billed = self._judge_calls(journalled, asked, complete=ended.exit_code is not None)
        if ended.exit_code is not None:
            self._judge_end(ended, before, asked, stops=False)
            return
        after = self._current()
        answered = {key for key in asked if after.get(key) != before.get(key)}
        self.lost = (self.lost | billed) - answered

    @rule(moment=MOMENTS)
    def night_with_two_runs(self, moment: int) -> None:
        """While one run stands still somewhere, another tries the same folder."""
        before, journalled = self._current(), len(self._events())
        asked = self._to_be_asked(before, "run", retry_failed=False)
        first = self._start(hold_at=moment)
        if first.is_held and (self.output / "results.jsonl").exists():
            second = self._start()
            assert second.end().exit_code == ExitCode.LOCKED
            assert second.pid not in {event["run"] for event in self._events()}
        ended = first.end()
        self._judge_calls(journalled, asked, complete=True)
        self._judge_end(ended, before, asked, stops=False)

    @invariant()
    def nothing_expired_was_sent(self) -> None:
        """No request ever named a file whose life was over."""
        assert not [event for event in self._events() if event["event"] == "sent expired"]

    # what must hold

    def _judge_calls(self, journalled: int, asked: set[str], *, complete: bool) -> set[str]:
        """Only what had to be asked was asked, and once; returns the keys that were billed."""
        calls = Counter(e["key"] for e in self._events()[journalled:] if e["event"] in ("paid", "asked"))
        assert set(calls) <= asked, f"asked again: {set(calls) - asked}"
        assert not complete or set(calls) == asked, f"never asked: {asked - set(calls)}"
        assert all(times == 1 for times in calls.values()), calls
        return {event["key"] for event in self._events()[journalled:] if event["event"] == "paid"}

    def _judge_end(self, ended: Ended, before: dict[str, Any], asked: set[str], *, stops: bool) -> None:
        assert ended.summary is not None
        assert self.lost <= set(ended.summary.in_doubt)
        after, first = self._current(), self._first_rows()
        assert len(self._lines()) == len(after), "a key has two lines after an orderly end"
        if stops:
            assert ended.exit_code == ExitCode.NEEDS_HUMAN
            assert after == before
            return
        self.lost -= asked
        duplicates = {f"{row.key}#line:{n}" for n, row in enumerate(self.rows, 1) if first[row.key] != (n, row)}
        removed = {key for key in before if "#" not in key and key not in first}
        assert set(after) == {*first, *duplicates, *removed}
        for key, (_, row) in first.items():
            if key in asked or question(after[key]) == self._question(row):
                assert question(after[key]) == self._question(row)
                _judge_line(after[key], row.prompt, self._question(row))
            else:
                assert after[key] == before[key]  # by --on-change keep
        failed = any(after[key]["status"] != "succeeded" for key in {*first, *duplicates})
        assert ended.exit_code == (ExitCode.SOME_FAILED if failed else ExitCode.OK)

    # what the model knows

    def _to_be_asked(self, before: dict[str, Any], on_change: str, *, retry_failed: bool) -> set[str]:
        """Keys that the next run has to ask about."""
        kept = self._changed(before) if on_change == "keep" else set()
        return {
            key
            for key, (_, row) in self._first_rows().items()
            if key not in kept and not _is_settled(before.get(key), self._question(row), retry_failed=retry_failed)
        }

    def _changed(self, before: dict[str, Any]) -> set[str]:
        """Keys that are done, with the same media, and another prompt now."""
        return {
            key
            for key, (_, row) in self._first_rows().items()
            if (line := before.get(key))
            and line["status"] == "succeeded"
            and question(line) != self._question(row)
            and question(line)[1] == self._question(row)[1]
        }

    def _first_rows(self) -> dict[str, tuple[int, Row]]:
        """Of each key the first row, which keeps it, and its line."""
        return {row.key: (n, row) for n, row in reversed(list(enumerate(self.rows, 1)))}

    def _question(self, row: Row) -> Question:
        media = (sha256((self.home / row.medium).read_bytes()).hexdigest(),) if row.medium else ()
        return sha256(row.prompt.encode()).hexdigest(), media

    def _lines(self) -> list[dict[str, Any]]:
        """Every whole line."""
        path = self.output / "results.jsonl"
        raw = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in raw.split(b"\n")[:-1]]

    def _current(self) -> dict[str, Any]:
        """The last line of each key, and one that lacks only its end."""
        path = self.output / "results.jsonl"
        tail = path.read_bytes().split(b"\n")[-1] if path.exists() else b""
        try:
            lines = [*self._lines(), json.loads(tail)]
        except ValueError:
            lines = self._lines()
        return {line["key"]: line for line in lines}

    def _events(self) -> list[dict[str, Any]]:
        return read_journal(self.journal)

    def _start(
        self, on_change: OnChange = "run", *, retry_failed: bool = False, kill_at: int = 0, hold_at: int = 0
    ) -> Run:
        source = self.home / "manifest.jsonl"
        rows = ({"key": r.key, "prompt": r.prompt} | ({"media": r.medium} if r.medium else {}) for r in self.rows)
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        spec = RunSpec(
            output=self.output,
            source_name=str(source),
            source=SourceSpec(path=source),
            selection=Selection(on_change=on_change, retry_failed=retry_failed),
            upload=UploadSpec(via="files", uploads=2),
            generation=GenerationSpec(concurrency=3, attempts=1),
        )
        later = self.later
        return Run(spec, self.journal, lambda: datetime.now(UTC) + later, kill_at=kill_at, hold_at=hold_at)


def question(line: dict[str, Any]) -> Question:
    """What a line answers."""
    return line["prompt_sha256"], tuple(medium["sha256"] for medium in line["media"])


def _is_settled(line: dict[str, Any] | None, wanted: Question, *, retry_failed: bool) -> bool:
    """Whether a line stands as it is: done, or failed for good."""
    if line is None or question(line) != wanted:
        return False
    return line["status"] == "succeeded" or not (line["error"]["retryable"] or retry_failed)


def _judge_line(line: dict[str, Any], prompt: str, asked: Question) -> None:
    if prompt == REFUSED:
        assert (line["status"], line["error"]["retryable"]) == ("failed", False)
    elif prompt == UNLUCKY:
        assert (line["status"], line["error"]["retryable"]) == ("failed", True)
    else:
        assert line["status"] == "succeeded"
        assert line["text"] == answer_to(prompt, list(asked[1]))


# Nothing is shrunk: each step is a process or two.
SHORT = settings(max_examples=25, stateful_step_count=12, phases=(Phase.reuse, Phase.generate))
LONG = settings(SHORT, max_examples=250, stateful_step_count=30)


def test_nights() -> None:
    """A few nights of a few folders."""
    run_state_machine_as_test(RunFolderMachine, settings=SHORT)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_nights() -> None:
    """Many nights of many folders."""
    run_state_machine_as_test(RunFolderMachine, settings=LONG)
