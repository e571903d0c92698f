"""The verdict on how a call ended, by the table of signals."""

from pipeline.gemini.api import Reply, Route
from pipeline.gemini.origins import origin
from pipeline.gemini.signals import Action, Row, Signal, Verdict, read_signal
from pipeline.gemini.table import SUCCESS, TABLE, UPLOADS
from pipeline.gemini.wire import TransportFault, may_be_billed

_RETRYABLE = frozenset(Action) - {Action.FAIL_ITEM, Action.STOP_HUMAN}
_REST = Row(rule="unknown", when=lambda _s: True, action=Action.RETRY, kind="unclassified", tries=3)


def classify(route: Route, seen: Reply | TransportFault) -> Verdict:
    """What ``seen`` means for a call on ``route``; knows an answer to everything."""
    signal = read_signal(route, seen)
    if SUCCESS.when(signal):  # the first row, and nearly always the one
        return Verdict(action=SUCCESS.action, rule=SUCCESS.rule, message=f"HTTP {signal.status}", signal=signal)
    row = next((row for row in TABLE if row.when(signal)), _REST)
    return Verdict(
        action=_chunk_action(row, route),
        rule=row.rule,
        message=_message(row, signal),
        kind=_kind(row, route),
        retryable=row.action in _RETRYABLE and not row.permanent,
        tries=row.tries,
        is_outage=row.is_outage,
        never_connected=signal.fault is not None and not signal.fault.body_sent,
        rewritten=row.rewritten,
        ambiguous=route is Route.GENERATE and row.action is not Action.SUCCESS and may_be_billed(seen),
        signal=signal,
    )


def _chunk_action(row: Row, route: Route) -> Action:
    """A chunk is never sent again blindly: wherever its fate is unknown, the offset is asked for."""
    return Action.QUERY if route is Route.UPLOAD_CHUNK and row.action is Action.RETRY else row.action


_TROUBLE = frozenset({"unavailable", "timeout", "network", "unclassified"})


def _kind(row: Row, route: Route) -> str | None:
    """On the upload path every trouble of network and service is one kind."""
    return "upload_failed" if route in UPLOADS and row.kind in _TROUBLE else row.kind


def _message(row: Row, signal: Signal) -> str:
    if signal.fault is not None:
        told = str(signal.fault)
    elif 300 <= signal.status < 400:
        told = origin(signal.headers.get("location", "")) or "the same host"
    elif signal.error.message:
        told = f"{signal.status} {signal.error.status or ''}".rstrip() + f": {signal.error.message}"
    else:
        told = f"HTTP {signal.status}"
    return f"{row.advice}: {told}" if row.advice else told
