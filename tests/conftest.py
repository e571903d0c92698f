"""What every test stands on: no key from the environment, and Hypothesis that minds a busy machine."""

import signal

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("shared_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared_machine")

for _number in (signal.SIGINT, signal.SIGHUP):
    # A shell's background job and nohup ignore these, the command inherits that and rightly leaves it so.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number is signal.SIGINT else signal.SIG_DFL)


_OF_PROCESSES = {"end_to_end", "faults", "security", "crash"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests take long go first: none is begun when the other workers have nothing left to do."""
    items.sort(key=lambda item: item.path.parent.name not in _OF_PROCESSES)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may find a key, an endpoint or a proxy that happens to be set."""
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
