"""The emulated service's state between requests; changes when something new outlives a request."""

import random
from datetime import datetime

from pipeline.emulator.faults import FaultPlan
from pipeline.emulator.files import FileStore
from pipeline.emulator.ledger import Ledger
from pipeline.emulator.media_facts import MediaFacts
from pipeline.emulator.model_catalog import served
from pipeline.emulator.plan import Lognormal, Plan, Range
from pipeline.emulator.quota import Quotas
from pipeline.emulator.uploads import Sessions
from pipeline.emulator.virtual_clock import VirtualClock


class Service:
    """Files, upload sessions, quotas, faults, facts and the ledger of one emulator."""

    def __init__(self, plan: Plan, clock: VirtualClock) -> None:
        self.clock = clock
        self.files = FileStore(plan.limits, plan.seed)
        self.sessions = Sessions()
        self.facts = MediaFacts()
        self.ledger = Ledger(record_bodies=plan.record_bodies)
        self.adopt(plan)

    def adopt(self, plan: Plan) -> None:
        """Follow another plan from now on; files, sessions and the ledger stay."""
        self.plan = plan
        self.models = served(plan.models)
        self.quotas = Quotas(plan.quota)
        self.faults = FaultPlan(plan.fault, plan.seed, self.seconds())
        self.random = random.Random(plan.seed)  # noqa: S311 - latencies, not secrets

    def close(self) -> None:
        """Let go of threads and temporary files."""
        self.facts.close()
        self.ledger.close()

    def now(self) -> datetime:
        """The emulator's wall clock."""
        return self.clock.now()

    def seconds(self) -> float:
        """The emulator's wall clock in Unix seconds."""
        return self.clock.timestamp_seconds()

    def latency_seconds(self, setting: float | Range | Lognormal) -> float:
        """One drawn latency."""
        if isinstance(setting, tuple):
            return self.random.uniform(*setting)
        if isinstance(setting, Lognormal):
            return setting.median_seconds * self.random.lognormvariate(0.0, setting.sigma)
        return setting
