"""What was seen of a run, for a person: a line each, and none where there is nothing to say; pure."""

from collections.abc import Mapping

from pipeline.report.bottleneck import Bottleneck
from pipeline.report.refusals import Quota

Quotas = Mapping[str, Mapping[str, Quota]]


def held_back(bottleneck: Bottleneck) -> list[str]:
    """The bottleneck, where there was one."""
    if bottleneck.stage is None:
        return []
    return [f"held back by {bottleneck.sentence} ({bottleneck.share:.0%} of the time)"]


def limits(quotas: Quotas) -> list[str]:
    """The limits learnt."""
    return [
        f"{model}: {'' if quota.is_told else 'about '}{quota.limit:,} {plain(name)}"
        for model, of_model in quotas.items()
        for name, quota in of_model.items()
        if quota.limit is not None
    ]


def trouble(quotas: Quotas, retries_by_cause: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Refusals by quota and retries by cause."""
    refused = [
        f"{quota.refused:,} by {plain(name)}"
        for of_model in quotas.values()
        for name, quota in of_model.items()
        if quota.refused
    ]
    retried = [
        f"{number:,} {cause} ({stage})"
        for stage, causes in retries_by_cause.items()
        for cause, number in sorted(causes.items(), key=lambda each: -each[1])
    ]
    told = [f"sent again after: {', '.join(retried)}"] if retried else []
    told += [f"refused: {', '.join(refused)}"] if refused else []
    return ["; ".join(told)] if told else []


def plain(name: str) -> str:
    """``requests_per_minute`` as ``requests a minute``."""
    return name.replace("_per_", " a ").replace("_", " ")
