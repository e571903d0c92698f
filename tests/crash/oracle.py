"""Judges a run folder that a crash left behind: opens it as the next run would, and compares it with what was said."""

import json
from pathlib import Path

from pipeline.ledger.api import Candidate, LedgerFactory
from pipeline.results.run_folder import RunFolder
from tests.crash import story


class Broken(AssertionError):
    """A promise that the folder does not keep."""


Said = dict[str, int]
"""The newest version of each key of which something was said."""


def said(words: list[str], verb: str) -> Said:
    """What ``verb`` (ack or sent) was said of."""
    found = (word.split(" ") for word in words if word.startswith(f"{verb} "))
    return {key: int(version) for _, key, version in found}


async def judge(
    path: Path, words: list[str], *, power_cut: bool = False, open_ledger: LedgerFactory = story.OPEN_LEDGER
) -> None:
    """Raise ``Broken``, or whatever opening raises, unless the folder keeps what ``words`` promise.

    After a power cut the ledger may have forgotten calls that were out; after a kill it may not.
    """
    acknowledged, sent = said(words, "ack"), said(words, "sent")
    async with story.opened(path, open_ledger) as folder:
        found = current_lines(path)
        vanished = story.VANISHING if "ended" in words else set()  # a later run is free to drop them
        for key, version in acknowledged.items():
            if found.get(key, (0,))[0] < version and key not in vanished:
                raise Broken(f"{key} was acknowledged in version {version}, and {found.get(key)} is there")
        await _ledger_agrees(folder, found)
        doubted = set(await folder.ledger.in_doubt())
        missed = {key for key, version in sent.items() if found.get(key, (0,))[0] < version} - doubted - vanished
        if missed and not power_cut:
            raise Broken(f"calls for {sorted(missed)} were out, and nobody names them in doubt")
        await _finish(folder, found)


def current_lines(path: Path) -> dict[str, tuple[int, int, int]]:
    """Version, offset and size of the last line of each key, by a reader that shares no code with the product."""
    content = (path / "results.jsonl").read_bytes()
    if content and not content.endswith(b"\n"):
        raise Broken("the last line has no end")
    found, offset = {}, 0
    for raw in content.split(b"\n")[:-1]:
        record = json.loads(raw)
        found[record["key"]] = (int(record["fingerprint"].removeprefix("v1:")), offset, len(raw) + 1)
        if raw + b"\n" != story.line(record["key"], found[record["key"]][0]):
            raise Broken(f"the line of {record['key']} is not what was written")
        offset += len(raw) + 1
    return found


async def _ledger_agrees(folder: RunFolder, found: dict[str, tuple[int, int, int]]) -> None:
    keys = sorted({*story.LAST, *found})
    answers = await folder.ledger.admit([Candidate(key=key, position=n) for n, key in enumerate(keys)])
    known = {
        key: (int((mark.fingerprint or "").removeprefix("v1:")), mark.offset, mark.size_bytes)
        for key, answer in zip(keys, answers, strict=True)
        if (mark := answer.mark)
    }
    if not known.items() <= found.items() or found.keys() - known.keys() - story.VANISHING:
        raise Broken(f"the ledger knows {known}, the file says {found}")


async def _finish(folder: RunFolder, found: dict[str, tuple[int, int, int]]) -> None:
    """The run that opened the folder sends what is missing, and ends with one line of each key."""
    missing = [(key, version) for key, version in story.LAST.items() if found.get(key, (0,))[0] < version]
    await story.work(folder, [missing] if missing else [], lambda _: None)
    left = current_lines(folder.path)
    count = (folder.path / "results.jsonl").read_bytes().count(b"\n")
    versions = {key: version for key, (version, _, _) in left.items()} | dict.fromkeys(story.VANISHING, 1)
    if versions != story.LAST or len(left) != count:
        raise Broken(f"the next run ended with {count} lines of {versions}")
