"""What nobody can beat: the arithmetic that runs are held against. Pure."""

from pipeline.emulator.quota import Window
from tests.benchmarks.service import Report, Service

WARM_UP_SECONDS = 60


def span_seconds(service: Service, items: int) -> float:
    """From the first call to the last one let in, for a client that knows the quota to the letter.

    It sends each call at the moment at which it is let in, with as many out as it likes, leaves others with the same
    key what they use, and waits for outages to end. The last answer's latency is not in it.
    """
    kind, limit, burst, units = service.window()
    left = limit - service.others_rpm * units
    window = Window(limit=left, kind=kind, capacity=min(burst, left))
    now = 0.0
    done = 0
    while done < items:
        if service.outage and service.outage[0] <= now < service.outage[1]:
            now = service.outage[1]
        wait = window.wait_seconds(units, now + service.window_phase_seconds)
        if wait > 0.0:
            now += max(wait, 1e-6)  # a wait that rounding makes vanish would never end
            continue
        window.take(units, now + service.window_phase_seconds)
        done += 1
    return now


def wall_seconds(report: Report, *, uploads: int, concurrency: int) -> float:
    """The busiest stage's service time over its concurrency, and the longest single item's path after it."""
    return max(report.upload_seconds / uploads, report.generate_seconds / concurrency) + report.longest_path_seconds


def quota_per_second(service: Service) -> float:
    """Calls that the quota allows in a second, less what others take."""
    _, limit, _, units = service.window()
    return (limit / units - service.others_rpm) / 60.0


def goodput(service: Service, accepted_each_second: list[int]) -> float | None:
    """Share of the quota that was used after the first minute, outages left out; None where it was over sooner."""
    seconds = range(WARM_UP_SECONDS, len(accepted_each_second) - 1)  # the last second is not a whole one
    outage = service.outage or (0.0, 0.0)
    counted = [accepted_each_second[s] for s in seconds if not outage[0] <= s < outage[1]]
    return sum(counted) / (len(counted) * quota_per_second(service)) if counted else None


def recovery_seconds(service: Service, accepted_each_second: list[int], *, over: int = 10) -> float | None:
    """After an outage's end, until ``over`` seconds took 80 % of the quota; None where they never did."""
    assert service.outage is not None
    end = int(service.outage[1])
    needed = 0.8 * quota_per_second(service) * over
    for second in range(end, len(accepted_each_second)):
        if sum(accepted_each_second[max(end, second + 1 - over) : second + 1]) >= needed:
            return float(second + 1 - end)
    return None
