"""Every scenario: who takes part, before which service, and the bars. Full sizes beside quick ones."""

import json
import shutil
import statistics
from collections.abc import Callable, Sequence

from msgspec import structs

from pipeline.emulator.plan import Quota
from tests.benchmarks import ideal
from tests.benchmarks.contest import Contest, Form, Media, Results, RoundOf
from tests.benchmarks.measure import Contestant, Run, run, server
from tests.benchmarks.report import Check, Outcome, Row
from tests.benchmarks.service import PROMPT_TOKENS, Seconds, Service
from tests.support.processes import PYTHON

OURS_FILES = Contestant("pipeline, files", "pipeline", "files")
OURS_AUTO = Contestant("pipeline, auto", "pipeline", "auto")
BARE_FILES = Contestant("bare loop, files", "bare_loop", "files")
BARE_INLINE = Contestant("bare loop, inline", "bare_loop", "inline")
SDK_FILES = Contestant("SDK, files", "sdk", "files", needs="google.genai")
SDK_INLINE = Contestant("SDK, inline", "sdk", "inline", needs="google.genai")
BATCH_FILES = Contestant("async-batch-llm, files", "async_batch_llm", "files", needs="async_batch_llm")
BATCH_INLINE = Contestant("async-batch-llm, inline", "async_batch_llm", "inline", needs="async_batch_llm")
INSPECT = Contestant("inspect_ai, inline", "inspect_ai", "inline", needs="inspect_ai")

LAG_BAR_MS = 50.0
FAST = Seconds(low=0.3, high=0.7)
SMALL_BYTES = 2_000
PACED_RPM = 600
BUCKET = Quota(requests_per_minute=6000, window="token_bucket", burst=100)


def speed(_: Contest, one: Run, others: RoundOf) -> float:
    """Items a second, of the bare File API loop's in the same round."""
    return one.items_per_second / others[BARE_FILES.name].items_per_second


def over_bound(contest: Contest, one: Run, _: RoundOf) -> float:
    """Wall time, of what the service's own times allow at best."""
    bound = ideal.wall_seconds(one.report, uploads=contest.uploads, concurrency=contest.concurrency)
    return one.ended.seconds / bound


def over_ideal(contest: Contest, one: Run, _: RoundOf) -> float:
    """First call to last answer, of what a client that knows the quota takes."""
    return one.report.span_seconds / ideal.span_seconds(contest.service, contest.media.count)


def at_most(what: str, value: float | None, bar: float) -> Check:
    """A bar from above."""
    return Check(what=what, value=value, bar=bar)


def at_least(what: str, value: float | None, bar: float) -> Check:
    """A bar from below."""
    return Check(what=what, value=value, bar=bar, at_least=True)


def middle(results: Results, name: str) -> float:
    """A contestant's median ratio."""
    return statistics.median(results.ratios(name))


def lag(results: Results, *names: str) -> list[Check]:
    """The event loop's bar, where the summary tells its lag."""
    lags = {name: results.median(name, lambda run: run.loop_lag_ms) for name in names}
    return [at_most(f"{name}: event-loop lag p99, ms", ms, LAG_BAR_MS) for name, ms in lags.items() if ms is not None]


def zero_latency(form: Form, *, uvloop: bool = False) -> Outcome:
    """Who is lightest."""
    files_bar = 0.75 if uvloop else 0.65

    def checks(results: Results) -> list[Check]:
        files, auto = middle(results, OURS_FILES.name), middle(results, OURS_AUTO.name)
        found = [
            at_least("pipeline, files / bare File API loop", files, files_bar),
            at_least("pipeline, auto / bare File API loop", auto, 1.3),
        ]
        if SDK_FILES.name in results.runs:
            pairs = zip(results.runs[OURS_FILES.name], results.runs[SDK_FILES.name], strict=True)
            times = statistics.median(ours.items_per_second / sdk.items_per_second for ours, sdk in pairs)
            found.append(at_least("pipeline, files / SDK, files", times, 3.0))
        return found + lag(results, OURS_FILES.name, OURS_AUTO.name)

    peers = [] if uvloop else [BATCH_FILES]
    loop = "uvloop" if uvloop else "asyncio's own loop"
    return Contest(
        name="zero_latency_uvloop" if uvloop else "zero_latency",
        title=f"Pictures of 20 kB, a service that answers at once, {loop} on every side; the whole process is timed.",
        contestants=[BARE_FILES, OURS_FILES, OURS_AUTO, BARE_INLINE, SDK_FILES, *peers],
        media=Media(500 if form.quick else 5000, 20_000),
        uvloop=uvloop,
        ratio_name="items/s of the bare File API loop",
        ratio=speed,
        checks=checks,
    ).play(form)


def zero_latency_uvloop(form: Form) -> Outcome:
    """The same on uvloop."""
    return zero_latency(form, uvloop=True)


def realistic(form: Form) -> Outcome:
    """How well stages overlap."""
    service = Service(
        upload_seconds=0.2, processing_seconds=5.0, generate=Seconds(low=2.0, high=8.0, median=4.0, sigma=0.35)
    )
    return Contest(
        name="realistic",
        title=(
            "Pictures and, every tenth, a video: upload 0.2 s, processing 5 s, generation 2 to 8 s lognormal. The bound"
            " is the busiest stage's service time over its concurrency and the longest single item's path."
        ),
        service=service,
        contestants=[OURS_FILES, BARE_FILES, SDK_FILES],
        media=Media(100 if form.quick else 1000, 20_000, video_every=10),
        at_once=3,
        ratio_name="wall time / bound",
        ratio=over_bound,
        checks=lambda results: [
            at_most("pipeline: wall time / bound", middle(results, OURS_FILES.name), 1.10),
            *lag(results, OURS_FILES.name),
        ],
    ).play(form)


def large_uploads(form: Form) -> Outcome:
    """Bytes."""

    def checks(results: Results) -> list[Check]:
        peak = results.median(OURS_FILES.name, lambda run: run.ended.peak_bytes / 1e6)
        return [
            at_least("pipeline: upload throughput / bare loop", middle(results, OURS_FILES.name), 0.85),
            at_most("pipeline: peak memory, MB", peak, 250.0),
            *lag(results, OURS_FILES.name),
        ]

    return Contest(
        name="large_uploads",
        title="Files of 10 MB, 16 at once, one question each; the bare loop posts the same bytes.",
        contestants=[BARE_FILES, OURS_FILES, SDK_FILES],
        media=Media(20 if form.quick else 200, 10_000_000),
        concurrency=16,
        ratio_name="throughput of the bare loop",
        ratio=speed,
        checks=checks,
    ).play(form)


def rush(
    form: Form,
    name: str,
    title: str,
    quota: Quota,
    *,
    items: int = 2000,
    peers: Sequence[Contestant] = (SDK_INLINE, BATCH_INLINE, INSPECT),
    most_over_ideal: float = 1.10,
    most_refused: float = 0.02,
    at_once: int = 1,
) -> Outcome:
    """A quota of 6,000 a minute and items in haste."""

    def checks(results: Results) -> list[Check]:
        refused = results.median(OURS_AUTO.name, lambda run: run.report.refused_share)
        return [
            at_most("pipeline: span / ideal", middle(results, OURS_AUTO.name), most_over_ideal),
            at_most("pipeline: share refused", refused, most_refused),
            at_most("pipeline: items without an answer", results.median(OURS_AUTO.name, lambda run: run.failed), 0.0),
            *lag(results, OURS_AUTO.name),
        ]

    return Contest(
        name=name,
        title=title,
        service=Service(generate=FAST, quota=quota),
        contestants=[OURS_AUTO, *peers],
        media=Media(600 if form.quick else items, SMALL_BYTES),
        concurrency=128,
        at_once=at_once,
        ratio_name="span / ideal",
        ratio=over_ideal,
        checks=checks,
    ).play(form)


def quota_token_bucket(form: Form) -> Outcome:
    """A bucket of 6,000 calls a minute, 20 s of haste."""
    title = "Token bucket of 6,000 a minute, burst 100, answers in 0.3 to 0.7 s, 128 at once; nobody is told the quota."
    return rush(form, "quota_token_bucket", title, BUCKET)


def quota_token_bucket_long(form: Form) -> Outcome:
    """The same, ten times as long."""
    title = "The same bucket, ten times the items."
    bars = {"most_over_ideal": 1.04, "most_refused": 0.005}
    return rush(form, "quota_token_bucket_long", title, BUCKET, items=20_000, peers=[SDK_INLINE], at_once=2, **bars)


def quota_unknown(form: Form) -> Outcome:
    """The same with 429s that tell how long to wait, and no quota."""
    title = "The same bucket, whose 429s tell how long to wait but not its size."
    return rush(form, "quota_unknown", title, structs.replace(BUCKET, with_quota_value=False))


def quota_silent(form: Form) -> Outcome:
    """The same with 429s that say nothing at all."""
    title = "The same bucket, whose 429s say nothing but that something is exhausted."
    return rush(form, "quota_silent", title, structs.replace(BUCKET, with_details=False))


def paced(form: Form, name: str, title: str, service: Service, items: int, *, least_goodput: float = 0.93) -> Outcome:
    """Minutes of a quota of 600 a minute; all runs at once, since waiting is all that they do."""

    def checks(results: Results) -> list[Check]:
        ours = OURS_AUTO.name
        found = [
            at_least("pipeline: goodput after the first minute", results.median(ours, results.goodput), least_goodput),
            at_most("pipeline: share refused", results.median(ours, lambda run: run.report.refused_share), 0.01),
            at_most("pipeline: items without an answer", results.median(ours, lambda run: run.failed), 0.0),
        ]
        if service.outage:
            after = results.median(ours, lambda run: ideal.recovery_seconds(service, run.report.accepted_each_second))
            found.append(at_most("pipeline: seconds until 80 % of the quota after the outage", after, 60.0))
        return found + lag(results, ours)

    return Contest(
        name=name,
        title=f"{title} Answers in 0.3 to 0.7 s, 64 at once.",
        service=service,
        contestants=[OURS_AUTO, SDK_INLINE],
        media=Media(items, SMALL_BYTES),
        at_once=2 * form.rounds,
        ratio_name="span / ideal",
        ratio=over_ideal,
        checks=checks,
    ).play(form)


def quota_fixed(form: Form) -> Outcome:
    """Windows that begin anew each minute."""
    quota = Quota(requests_per_minute=PACED_RPM, window="fixed")
    service = Service(generate=FAST, quota=quota, window_phase_seconds=20.0)
    title = f"Fixed windows of {quota.requests_per_minute} a minute, the first call 20 s into one."
    return paced(form, "quota_fixed", title, service, 800 if form.quick else 2400)


def quota_sliding(form: Form) -> Outcome:
    """The last sixty seconds count."""
    quota = Quota(requests_per_minute=PACED_RPM, window="sliding")
    title = f"A sliding window of {quota.requests_per_minute} a minute."
    service = Service(generate=FAST, quota=quota)
    return paced(form, "quota_sliding", title, service, 800 if form.quick else 2400)


def quota_tokens(form: Form) -> Outcome:
    """Input tokens bind, not requests."""
    quota = Quota(input_tokens_per_minute=PACED_RPM * PROMPT_TOKENS, window="sliding")
    title = f"A sliding window of {quota.input_tokens_per_minute:,} input tokens a minute, {PROMPT_TOKENS:,} a call."
    service = Service(generate=FAST, quota=quota)
    return paced(form, "quota_tokens", title, service, 800 if form.quick else 2400)


def outage(form: Form) -> Outcome:
    """Nothing works for a while."""
    quota = Quota(requests_per_minute=PACED_RPM, window="token_bucket", burst=50)
    span = (15.0, 30.0) if form.quick else (60.0, 120.0)
    service = Service(generate=FAST, quota=quota, outage=span, trouble_share=0.02)
    title = (
        f"Token bucket of 600 a minute, burst 50; 2 % of calls and all between {span[0]:g} and {span[1]:g} s get 503."
    )
    return paced(form, "outage", title, service, 400 if form.quick else 2000, least_goodput=0.90)


def shared_quota(form: Form) -> Outcome:
    """Others use the same key."""
    quota = Quota(requests_per_minute=PACED_RPM, window="token_bucket", burst=50)
    service = Service(generate=FAST, quota=quota, others_rpm=200.0)
    title = "Token bucket of 600 a minute, burst 50, of which others use 200."
    return paced(form, "shared_quota", title, service, 500 if form.quick else 2400, least_goodput=0.90)


def million_rows(form: Form) -> Outcome:
    """A manifest of a million rows over a thousand pictures, all of it sent; then once more with nothing left to do."""
    rows, files = (20_000, 1000) if form.quick else (1_000_000, 1000)
    place = form.work / "million_rows"
    place.mkdir()
    media = Media(files, SMALL_BYTES).write(place / "media")
    names = sorted(path.name for path in media.iterdir())
    with (place / "manifest.jsonl").open("w") as manifest:
        for number in range(rows):
            row = {"key": f"row {number:07d}", "media": f"media/{names[number % files]}"}
            manifest.write(json.dumps(row) + "\n")
    command = [PYTHON, "-m", "pipeline", "run", str(place / "manifest.jsonl"), "-o", str(place / "run"), "--json"]
    runs = []
    for name in ("pipeline, all to do", "pipeline, all done"):
        with server(Service()) as serving:
            ended = run([*command, "--base-url", serving.url])
        told = json.loads(ended.stdout)
        answered = told["items"]["succeeded"] + told["items"]["unchanged"]
        lag_ms = told.get("loop_lag_ms", {}).get("p99")
        runs.append(Run(name, answered, rows - answered, ended, lag_ms, serving.report))
        form.tell(f"million_rows: {name} {ended.seconds:.1f} s")
    shutil.rmtree(place)
    first, second = runs
    begun = first.report.first_generate_at
    return Outcome(
        name="million_rows",
        title=f"A manifest of {rows:,} rows over {files:,} pictures of 2 kB, to the end; then again.",
        ratio_name="ratio",
        rows=[plain_row(one) for one in runs],
        checks=[
            at_most("start to first request, s", begun - first.ended.began_at if begun else None, 15.0),
            at_most("peak memory, MB", max(one.ended.peak_bytes for one in runs) / 1e6, 300.0),
            at_most("all done: seconds", second.ended.seconds, 60.0),
            at_most("all done: calls", second.report.calls, 0.0),
            at_most("items without an answer", second.failed, 0.0),
        ],
    )


def plain_row(one: Run) -> Row:
    """A single run's line, which is compared with nothing."""
    return Row(
        contestant=one.contestant,
        ratios=[],
        cpu_ms_per_item=one.cpu_ms_per_item,
        items_per_second=one.items_per_second,
        seconds=one.ended.seconds,
        peak_mb=one.ended.peak_bytes / 1e6,
        failed=one.failed,
        refused_share=one.report.refused_share,
        goodput=None,
        server_busy_share=one.report.busy_share,
        loop_lag_ms=one.loop_lag_ms,
    )


def start(form: Form) -> Outcome:
    """How long a person waits for ``--help``."""
    took = [run([PYTHON, "-m", "pipeline", "--help"]).seconds * 1e3 for _ in range(max(5, form.rounds))]
    title = "The command as a person sees it first."
    checks = [at_most("pipeline --help, ms", statistics.median(took), 150.0)]
    return Outcome(name="start", title=title, rounds=len(took), checks=checks)


def governor_simulation(form: Form) -> Outcome:
    """The governor in virtual time, a script of its own."""
    arguments = ["--seeds", "1", "--only", "150 RPM"] if form.quick else []
    ended = run([PYTHON, "-m", "tests.benchmarks.governor_simulation", *arguments])
    title = "The governor in virtual time before every quota model, the worst of the seeds."
    return Outcome(name="governor_simulation", title=title, text=ended.stdout or ended.stderr)


def million_lines(form: Form) -> Outcome:
    """Opening a big run folder, a script of its own."""
    ended = run([PYTHON, "-m", "tests.benchmarks.million_lines", *(["--lines", "50000"] if form.quick else [])])
    title = "Opening a results.jsonl with and without its ledger, against a bare scan of the file."
    return Outcome(name="million_lines", title=title, text=ended.stdout or ended.stderr)


SCENARIOS: dict[str, Callable[[Form], Outcome]] = {
    one.__name__: one
    for one in (
        start,
        zero_latency,
        zero_latency_uvloop,
        realistic,
        large_uploads,
        quota_token_bucket,
        quota_token_bucket_long,
        quota_unknown,
        quota_silent,
        quota_fixed,
        quota_sliding,
        quota_tokens,
        outage,
        shared_quota,
        million_rows,
        million_lines,
        governor_simulation,
    )
}
