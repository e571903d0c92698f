"""When too many items fail."""

from pipeline.engine.failure_budget import FailureBudget


def test_nothing_is_said_during_probation() -> None:
    """The first 199 items may all fail."""
    budget = FailureBudget(0.5)
    assert not any(budget.spend(failed=True) for _ in range(199))
    assert budget.spend(failed=True)


def test_the_share_is_of_items_sent() -> None:
    """Half failed is still within a budget of a half; more is not."""
    budget = FailureBudget(0.5)
    assert not any(budget.spend(failed=n % 2 == 1) for n in range(400))
    assert budget.spend(failed=True)


def test_a_share_of_one_is_off() -> None:
    """With 1 the run never ends for failures."""
    budget = FailureBudget(1.0)
    assert not any(budget.spend(failed=True) for _ in range(1000))
