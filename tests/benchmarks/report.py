"""What came out, as data, as Markdown and as a picture: ratios first, the client's CPU beside them."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Row(msgspec.Struct, kw_only=True):
    """One contestant in one scenario: the ratio of each round, and the medians of the rest."""

    contestant: str
    ratios: list[float]
    cpu_ms_per_item: float
    items_per_second: float
    seconds: float
    peak_mb: float
    failed: float
    refused_share: float
    goodput: float | None
    server_busy_share: float
    loop_lag_ms: float | None


class Check(msgspec.Struct, kw_only=True):
    """A figure with the bar that is set for it."""

    what: str
    value: float | None
    bar: float
    at_least: bool = False

    def holds(self) -> bool:
        """Whether the bar is cleared."""
        return self.value is not None and (self.value >= self.bar if self.at_least else self.value <= self.bar)


class Outcome(msgspec.Struct, kw_only=True):
    """One scenario's figures, or the output of a script of its own."""

    name: str
    title: str
    ratio_name: str = ""
    rounds: int = 1
    load: float = 0.0
    """Of the machine at the end; above its cores, somebody else was busy."""
    rows: list[Row] = []
    checks: list[Check] = []
    text: str = ""


class Report(msgspec.Struct, kw_only=True):
    """A whole run."""

    machine: str
    quick: bool
    outcomes: list[Outcome]


COLUMNS = ("", "CPU/item", "items/s", "time", "peak", "without answer", "refused", "goodput", "loop lag p99", "server")


def markdown(outcome: Outcome, *, quick: bool) -> str:
    """One scenario's section. The quick form shows its bars but is no judge of them."""
    lines = [f"## {outcome.name}", "", f"{outcome.title} Median of {outcome.rounds}; load {outcome.load:.1f}.", ""]
    if outcome.rows:
        header = [outcome.ratio_name, *COLUMNS[1:]]
        lines += _table(["contestant", *header], [_cells(row) for row in outcome.rows])
    for check in outcome.checks:
        verdict = "" if quick else "cleared" if check.holds() else "BELOW THE BAR"
        sign = ">=" if check.at_least else "<="
        lines.append(f"- {check.what}: {_number(check.value)} (bar {sign} {check.bar:g}) {verdict}".rstrip())
    if outcome.text:
        lines += ["```text", outcome.text.rstrip(), "```"]
    return "\n".join([*lines, ""])


def write(report: Report, folder: Path, *, picture: bool) -> list[Path]:
    """``benchmarks.md``, ``.json`` and, where it is asked for and matplotlib is installed, ``.png``.

    matplotlib stays in the process: a contestant started after it would seem to need its memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"benchmarks.{suffix}" for suffix in ("md", "json", "png")]
    form = "Quick form: few rounds of few items, no judge of the bars. " if report.quick else ""
    head = f"# Benchmarks\n\n{form}{report.machine}\n\n"
    paths[0].write_text(head + "\n".join(markdown(outcome, quick=report.quick) for outcome in report.outcomes))
    paths[1].write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return paths if picture and draw(report, paths[2]) else paths[:2]


def draw(report: Report, path: Path) -> bool:
    """A line of two panels a scenario: ratios with their spread and bars, CPU an item; False without matplotlib."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return False
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    outcomes = [outcome for outcome in report.outcomes if any(row.ratios for row in outcome.rows)]
    if not outcomes:
        return False
    heights = [len(outcome.rows) + 1.5 for outcome in outcomes]
    figure, panels = plt.subplots(
        len(outcomes), 2, figsize=(13, 0.42 * sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for outcome, (ratio_panel, cpu_panel) in zip(outcomes, panels, strict=True):
        rows = outcome.rows[::-1]
        names = [row.contestant for row in rows]
        colours = ["tab:blue" if name.startswith("pipeline") else "silver" for name in names]
        medians = [statistics.median(row.ratios) if row.ratios else 0.0 for row in rows]
        spread = [
            [middle - min(row.ratios, default=0.0) for middle, row in zip(medians, rows, strict=True)],
            [max(row.ratios, default=0.0) - middle for middle, row in zip(medians, rows, strict=True)],
        ]
        ratio_panel.barh(names, medians, xerr=spread, color=colours, ecolor="black", capsize=2)
        ratio_panel.axvline(1.0, color="black", linewidth=0.8, linestyle=":")
        ratio_panel.set_title(f"{outcome.name}: {outcome.ratio_name}", fontsize=9, loc="left")
        cpu_panel.barh(names, [row.cpu_ms_per_item for row in rows], color=colours)
        cpu_panel.set_title("client CPU an item, ms", fontsize=9, loc="left")
        cpu_panel.set_yticks([])
        ratio_panel.tick_params(labelsize=8)
        cpu_panel.tick_params(labelsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _cells(row: Row) -> list[str]:
    ratio = "-"
    if row.ratios:
        ratio = f"{statistics.median(row.ratios):.2f} ({min(row.ratios):.2f}-{max(row.ratios):.2f})"
    return [
        row.contestant,
        ratio,
        f"{row.cpu_ms_per_item:.2f} ms",
        f"{row.items_per_second:.0f}" if row.items_per_second >= 100 else f"{row.items_per_second:.1f}",
        f"{row.seconds:.1f} s",
        f"{row.peak_mb:.0f} MB",
        f"{row.failed:.0f}",
        f"{row.refused_share:.2%}",
        "-" if row.goodput is None else f"{row.goodput:.1%}",
        "-" if row.loop_lag_ms is None else f"{row.loop_lag_ms:.1f} ms",
        f"{row.server_busy_share:.0%} busy",
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, *rows)
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:], ""]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
