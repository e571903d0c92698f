"""Fixtures of the crash proofs."""

from tests.crash.strace import tracing_allowed

__all__ = ["tracing_allowed"]
