"""The governor against simulated services in virtual time: the core in every scenario, the shell in one."""

import math
import random

import anyio
import pytest

from pipeline.clock import SystemClock
from pipeline.drain import Drain
from pipeline.emulator.quota import Window
from pipeline.gemini.api import Reply
from pipeline.gemini.governor.adaptive import AdaptiveGovernor
from pipeline.gemini.health import Patience
from pipeline.gemini.models import KeyProbe
from pipeline.gemini.retrying import RetryingTransport
from pipeline.spec import EndpointSpec, QuotaSpec
from tests.benchmarks.governor_simulation import SCENARIOS, Scenario, simulate
from tests.gemini.doubles import OK, Recorder, Service, error, generate, virtually


@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.items != 20_000], ids=lambda one: one.name)
def test_every_scenario_clears_its_bar(scenario: Scenario) -> None:
    """Goodput, refusals, warm-up, recovery, gate and calls in flight keep to the bar."""
    figures = simulate(scenario, seed=1)
    assert figures.within(scenario), figures


def test_the_whole_client_paces_itself_below_an_unknown_quota() -> None:
    """Sixty-four workers through the real transport: 93 % of 150 a minute and 1 % refused over 20 minutes."""

    async def scenario() -> None:
        chance = random.Random(1)
        window = Window(150, "sliding", 150)
        accepted: list[float] = []
        refused = 0

        async def answer() -> Reply:
            nonlocal refused
            now = anyio.current_time()
            wait = window.wait_seconds(1, now)
            if wait > 0:
                refused += 1
                await anyio.sleep(0.1)
                return _minute_quota(150, wait)
            window.take(1, now)
            accepted.append(now)
            await anyio.sleep(chance.lognormvariate(math.log(7), 0.6))
            return OK

        transport = _client(Service(lambda _call, _n: answer()))
        started = anyio.current_time()

        async def worker() -> None:
            while True:
                await transport.send(generate())

        with anyio.move_on_after(1200):
            async with anyio.create_task_group() as group:
                for _ in range(64):
                    group.start_soon(worker)
        assert sum(at >= started + 60 for at in accepted) >= 0.93 * 150 * 19
        assert refused <= 0.01 * len(accepted)

    virtually(scenario())


def _minute_quota(value: int, delay_seconds: float) -> Reply:
    violation = {"quotaId": "GenerateRequestsPerMinutePerProjectPerModel", "quotaValue": str(value)}
    return error(
        429,
        "quota",
        "RESOURCE_EXHAUSTED",
        {"@type": "x/google.rpc.QuotaFailure", "violations": [violation]},
        {"@type": "x/google.rpc.RetryInfo", "retryDelay": f"{delay_seconds:.3f}s"},
    )


def _client(service: Service) -> RetryingTransport:
    drain, seen = Drain(), Recorder()
    governor = AdaptiveGovernor(
        concurrency=64, quota=QuotaSpec(), drain=drain, observer=seen, clock=SystemClock(), jitter=lambda: 0.5
    )
    return RetryingTransport(
        service,
        governor=governor,
        key_check=KeyProbe(service, EndpointSpec()),
        attempts=6,
        patience=Patience(),
        drain=drain,
        observer=seen,
    )
