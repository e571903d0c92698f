"""Opening after whatever happened: results.jsonl is mended at its end, and the ledger brought in line with it."""

from anyio.to_thread import run_sync

from pipeline.ledger.api import Mark, RunLedger
from pipeline.results import salvage
from pipeline.results.record import mark_of
from pipeline.results.recovery import DamagedLine, Scan
from pipeline.results.results_file import ResultsFile, damaged


async def reconcile(results: ResultsFile, ledger: RunLedger) -> bool:
    """Make the file end with a whole line and the ledger agree with it; whether there was anything to do.

    Where the ledger knows the file up to a point, only what follows is read; else all of it. Raises
    ``StopForHuman`` where a line is damaged that no crash can have damaged.
    """
    offset = await ledger.taken_in()
    durable_end = results.durable_end(offset)
    is_known = offset is not None and results.only_grew_since(offset)
    scan = results.scan(durable_end if is_known else 0)
    found: list[Mark] = []
    try:
        if is_known:
            found = await run_sync(list, scan.marks())
        else:
            await ledger.rebuild(scan.marks())
        _refuse_to_cut(scan, durable_end)
    except DamagedLine as damage:
        raise damaged(damage, results.path.parent) from damage
    size_before = results.end
    mended = await run_sync(results.mend_tail, scan)
    if mended:
        found.append(mended)
    await ledger.mark(found, results.offset())
    was_salvaged = await _take_in_salvage(results, ledger)
    was_rebuilt = not is_known and size_before > 0
    return bool(was_rebuilt or found or was_salvaged or results.end != size_before)


def _refuse_to_cut(scan: Scan, durable_end: int) -> None:
    """What an earlier run knew to be durable is no torn tail."""
    if scan.good_end < durable_end and scan.unterminated is None:
        raise DamagedLine(scan.good_end)


async def _take_in_salvage(results: ResultsFile, ledger: RunLedger) -> bool:
    """Append what a run could not commit, and only then let go of it: twice the same line does no harm."""
    files = await run_sync(salvage.files_in, results.path.parent)
    for path in files:
        lines = await run_sync(salvage.whole_lines, path)
        marks, offset = [], results.end
        for line in lines:
            marks.append(mark_of(line[:-1], offset))
            offset += len(line)
        await run_sync(results.append_salvaged, lines)
        await ledger.mark(marks, results.offset())
        await run_sync(salvage.let_go, path)
    return bool(files)
