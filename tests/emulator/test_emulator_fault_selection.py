"""Plans strike the requests they say, and the same ones every time."""

import threading

import pytest
from emulator_http import Http

from pipeline.emulator import Fault
from pipeline.emulator.fault_kinds import KINDS
from pipeline.emulator.faults import draw
from pipeline.emulator.routing import ROUTES

TEXT = {"text": "a prompt"}


def statuses(api: Http, prompts: list[str], parallel: bool) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {prompt: [] for prompt in prompts}

    def ask(prompt: str) -> None:
        found[prompt] += [api.generate({"text": prompt}).status for _ in range(2)]

    if not parallel:
        for prompt in prompts:
            ask(prompt)
        return found
    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in reversed(prompts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_plan_strikes_the_same_requests_in_any_order(api_with):
    """With a rate, the same prompts and attempts fail whether asked one by one or all at once in reverse."""
    faults = [Fault(kind="503", route="generate", rate=0.3), Fault(kind="500", route="*", rate=0.2)]
    prompts = [f"prompt {number}" for number in range(40)]
    first = statuses(api_with(*faults, seed=5), prompts, parallel=False)
    assert statuses(api_with(*faults, seed=5), prompts, parallel=True) == first
    assert statuses(api_with(*faults, seed=6), prompts, parallel=False) != first
    seen = [status for pair in first.values() for status in pair]
    assert set(seen) == {200, 500, 503}
    assert 10 < seen.count(503) < 40
    assert any(before != after for before, after in first.values()), "a second attempt is drawn anew"


def test_draws_are_even():
    """The share of identities under a rate is the rate."""
    hits = sum(draw(1, 0, "generate", str(number), 1) < 0.25 for number in range(4000))
    assert 900 < hits < 1100


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"attempt": 2}, [200, 500, 200, 200]),
        ({"attempt": [1, 3]}, [500, 200, 500, 200]),
        ({"first": 1}, [500, 200, 200, 200]),
        ({"after": 1}, [200, 500, 500, 500]),
        ({"until": 2}, [500, 500, 200, 200]),
        ({"after": 1, "until": 2}, [200, 500, 200, 200]),
        ({"match": "prompt"}, [500] * 4),
        ({"match": "another"}, [200] * 4),
        ({"rate": 0.0}, [200] * 4),
        ({"until_seconds": 60}, [500] * 4),
        ({"after_seconds": 60}, [200] * 4),
        ({"route": "count_tokens"}, [200] * 4),
        ({"route": ["generate", "file_get"]}, [500] * 4),
    ],
)
def test_faults_select_by_attempt_count_time_text_and_route(api_with, selection, expected):
    """Each way of selecting hits exactly the requests it says."""
    api = api_with(Fault(kind="500", **{"route": "generate", **selection}))
    assert [api.generate(TEXT).status for _ in range(4)] == expected


def test_faults_follow_the_virtual_clock_and_file_names(api_with):
    """A span in seconds opens when the clock is moved, and a display name selects an upload's requests."""
    api = api_with(
        Fault(kind="503", route="generate", after_seconds=300, until_seconds=600),
        Fault(kind="500", route="upload_start", match="bad"),
    )
    seen = []
    for seconds in (0, 301, 300):
        api.emulator.advance(seconds)
        seen.append(api.generate(TEXT).status)
    assert seen == [200, 503, 200]
    assert [api.start({"display_name": name}).status for name in ("good", "bad one")] == [200, 500]


def test_every_kind_strikes_only_routes_that_exist():
    """The table of kinds names known routes, and holds every kind of the classification."""
    assert len(KINDS) >= 55
    assert all(kind.routes <= ROUTES for kind in KINDS.values())
