"""What every signal of the service means: one table, read from the top, the first row that fits wins.

The rows are those of reliability's section 3 and the API reference's; the content of a 200 is the generation room's.
"""

from pipeline.gemini.api import Route
from pipeline.gemini.signals import Action, Row, Signal
from pipeline.gemini.wire import FaultKind

UPLOADS = frozenset({Route.UPLOAD_START, Route.UPLOAD_CHUNK, Route.UPLOAD_QUERY})
_SESSION = frozenset({Route.UPLOAD_CHUNK, Route.UPLOAD_QUERY})
_FIRST = frozenset({Route.UPLOAD_START, Route.GENERATE})
"""What a run sends first: an endpoint that knows neither is none."""

UNKNOWN_CALL = "unknown call"


def _ok(s: Signal) -> bool:
    return 200 <= s.status < 300


def _api(s: Signal, *statuses: int) -> bool:
    """One of ``statuses`` in the API's own error shape."""
    return s.status in statuses and s.error.recognised


def _kept_promise(s: Signal) -> bool:
    """Whether a 2xx holds what its route promises."""
    if s.route is Route.UPLOAD_START:
        return "x-goog-upload-url" in s.headers
    if s.route in _SESSION:
        return "x-goog-upload-status" in s.headers or s.is_json
    return s.is_json or (s.is_empty and s.route is Route.FILE_DELETE)


_KEY = "The key is refused; set GEMINI_API_KEY to a valid one. The service says"
_PROJECT = "The project may not use the API; see its settings in Google AI Studio. The service says"
_MODEL = "The model can't be used; choose another with --model. The service says"
_BILLING = "Billing stops the project; see Google AI Studio. The service says"
_DAY = "The daily quota is used up; it starts anew at midnight Pacific time. The service says"
_REDIRECT = "The endpoint redirects, which is refused to keep the key secret; correct the base URL. It points to"
_TLS = "The server's certificate can't be verified; correct the base URL, the clock or the machine's trust store"

_A = Action
SUCCESS = Row(rule="success", when=lambda s: _ok(s) and _kept_promise(s), action=_A.SUCCESS)

TABLE: tuple[Row, ...] = (
    SUCCESS,
    # no reply ------------------------------------------------------------------------------------------------
    Row(
        rule="certificate",
        when=lambda s: s.fault is not None and s.fault.kind is FaultKind.TLS_VERIFICATION,
        action=_A.STOP_HUMAN,
        advice=_TLS,
    ),
    Row(
        rule="reply too large",
        when=lambda s: s.fault is not None and s.fault.kind is FaultKind.BODY_TOO_LARGE,
        action=_A.RETRY,
        kind="unavailable",
        is_outage=True,
        rewritten=True,
    ),
    Row(
        rule="time-out",
        when=lambda s: s.fault is not None and s.fault.kind in (FaultKind.TIMEOUT_TOTAL, FaultKind.TIMEOUT_IDLE),
        action=_A.RETRY,
        kind="timeout",
        is_outage=True,
    ),
    Row(
        rule="network",
        when=lambda s: s.fault is not None,
        action=_A.RETRY,
        kind="network",
        is_outage=True,
    ),
    # replies that are not what they should be ----------------------------------------------------------------
    Row(rule="redirect", when=lambda s: 300 <= s.status < 400, action=_A.STOP_HUMAN, advice=_REDIRECT),
    Row(
        rule="no upload URL",
        when=lambda s: _ok(s) and s.route is Route.UPLOAD_START,
        action=_A.RETRY,
        kind="upload_failed",
        tries=3,
        advice="The upload's URL is missing from the reply (X-Goog-Upload-URL)",
    ),
    Row(
        rule="not JSON",
        when=_ok,
        action=_A.RETRY,
        kind="unavailable",
        is_outage=True,
        rewritten=True,
        advice="The reply is no JSON",
    ),
    # the key, the project, the model: the same for every item ---------------------------------------------------
    Row(
        rule="project refused",
        when=lambda s: (
            _api(s, 400, 401, 403)
            and s.says(
                "SERVICE_DISABLED",
                "CONSUMER_INVALID",
                "CONSUMER_SUSPENDED",
                "BILLING_DISABLED",
                r"API_KEY_\w+_BLOCKED",
                "API_KEY_EXPIRED",
                "reported as leaked",
                "unregistered callers",
                "location is not supported",
                "not available in your country",
            )
        ),
        action=_A.STOP_HUMAN,
        advice=_PROJECT,
    ),
    Row(
        rule="key refused",
        when=lambda s: s.status == 401 or (_api(s, 400, 403) and s.says("API_KEY_INVALID", r"api key (not|expired)")),
        action=_A.PROBE_KEY,
        kind="unclassified",
        tries=3,
        advice=_KEY,
    ),
    Row(
        rule="model unknown",
        when=lambda s: _api(s, 404) and (s.route is Route.MODEL_GET or s.says(r"\bmodels?\b")),
        action=_A.STOP_HUMAN,
        advice=_MODEL,
    ),
    # 429: the most severe of the violations decides, not RetryInfo -------------------------------------------
    Row(
        rule="storage full",
        when=lambda s: (
            s.status == 429 and s.route in UPLOADS and (s.quota("file_storage_bytes") or s.says("file_storage_bytes"))
        ),
        action=_A.PAUSE_STORAGE,
    ),
    Row(
        rule="billing",
        # "check your plan and billing details" is part of every quota message and says nothing
        when=lambda s: (
            s.status == 429
            and not s.error.violations
            and s.says("prepay", "credits are depleted", r"\bspend", r"billing(?! details)")
        ),
        action=_A.STOP_HUMAN,
        advice=_BILLING,
    ),
    Row(
        rule="no quota",
        when=lambda s: (
            s.status == 429
            and (s.says(r"limit: 0(?![\d.]*[1-9])\b") or any(v.value == "0" for v in s.error.violations))
        ),
        action=_A.STOP_HUMAN,
        advice="The project has no quota for this model; choose another model or tier. The service says",
    ),
    Row(
        rule="day and minute quota",
        when=lambda s: s.status == 429 and s.quota("PerDay") and s.quota("PerMinute"),
        action=_A.PROBE_DAY,
        kind="unavailable",
        advice=_DAY,
    ),
    Row(
        rule="day quota",
        when=lambda s: s.status == 429 and (s.quota("PerDay") or s.quota("per_day")),
        action=_A.STOP_EARLY,
        advice=_DAY,
    ),
    Row(rule="minute quota", when=lambda s: s.status == 429, action=_A.WAIT, kind="unavailable"),
    # files that a request names --------------------------------------------------------------------------------
    Row(
        rule="file not ACTIVE",
        when=lambda s: s.status == 400 and s.says("not in an ACTIVE state"),
        action=_A.AGAIN_NOT_ACTIVE,
        kind="stuck_processing",
    ),
    Row(
        rule="already deleted",
        when=lambda s: s.route is Route.FILE_DELETE and (s.status == 404 or _api(s, 403)),
        action=_A.SUCCESS,
    ),
    Row(
        rule="file gone",
        when=lambda s: (
            (s.route is Route.FILE_GET and (s.status == 404 or _api(s, 403)))
            or (s.route is Route.GENERATE and _api(s, 404))
            or (s.route is Route.GENERATE and _api(s, 403) and s.says(r"\bfiles?\b"))
            or (s.route is Route.GENERATE and s.status == 400 and s.says(r"\bfiles?\b.*(not exist|not found|expired)"))
        ),
        action=_A.AGAIN_FILE_GONE,
        kind="file_gone",
    ),
    Row(rule="no permission", when=lambda s: _api(s, 403), action=_A.STOP_HUMAN, advice=_PROJECT),
    # upload sessions: their errors are often no JSON -----------------------------------------------------------
    Row(
        rule="upload too large",
        when=lambda s: s.route in UPLOADS and s.status == 413,
        action=_A.FAIL_ITEM,
        kind="file_too_large",
    ),
    Row(
        rule="session dead",
        when=lambda s: (
            s.route in _SESSION and (s.status in (404, 409, 410) or s.says("already been terminated", "already exists"))
        ),
        action=_A.RESTART,
        kind="upload_failed",
    ),
    Row(
        rule="upload rejected",
        when=lambda s: s.route in _SESSION and s.status >= 400 and s.headers.get("x-goog-upload-status") == "final",
        action=_A.RESTART,
        kind="upload_failed",
        permanent=True,
        tries=2,
    ),
    Row(
        rule="chunk refused",
        when=lambda s: s.route is Route.UPLOAD_CHUNK and 400 <= s.status < 500 and s.status != 408,
        action=_A.QUERY,
        kind="upload_failed",
    ),
    Row(
        rule="query refused",
        when=lambda s: s.route is Route.UPLOAD_QUERY and 400 <= s.status < 500 and s.status != 408,
        action=_A.RESTART,
        kind="upload_failed",
    ),
    # the input says no -----------------------------------------------------------------------------------------
    Row(
        rule="request too large",
        when=lambda s: (
            s.status == 413 or (s.status == 400 and s.says("payload size exceeds", "payload.{0,20}too large"))
        ),
        action=_A.FAIL_ITEM,
        kind="request_too_large",
    ),
    Row(
        rule="too many tokens",
        when=lambda s: s.status == 400 and s.says("token count.*exceed", "exceeds the maximum number of tokens"),
        action=_A.FAIL_ITEM,
        kind="context_too_long",
    ),
    Row(
        rule="too many images",
        when=lambda s: s.status == 400 and s.says(r"fewer than \d+ images", "too many images"),
        action=_A.FAIL_ITEM,
        kind="too_many_images",
    ),
    Row(
        rule="unsupported type",
        when=lambda s: s.status == 400 and s.says("unsupported mime", r"mime ?type.*(not supported|unsupported)"),
        action=_A.FAIL_ITEM,
        kind="unsupported_type",
    ),
    Row(
        rule="can't fetch",
        when=lambda s: s.status == 400 and s.says("cannot fetch content"),
        action=_A.RETRY,
        kind="invalid_request",
        permanent=True,
        tries=3,
    ),
    Row(
        rule="400 without a reason",
        when=lambda s: (
            s.route is Route.GENERATE
            and _api(s, 400)
            and (not s.error.message or s.says(r"^\s*(request contains an invalid argument|invalid argument)\.?\s*$"))
        ),
        action=_A.AGAIN_FRESH_UPLOAD,
        kind="invalid_request",
        permanent=True,
    ),
    Row(rule="400", when=lambda s: _api(s, 400), action=_A.FAIL_ITEM, kind="invalid_request"),
    Row(
        rule=UNKNOWN_CALL,
        when=lambda s: s.route in _FIRST and s.status in (404, 405, 501) and not s.error.recognised,
        action=_A.RETRY,
        kind="unavailable",
        is_outage=True,
        rewritten=True,
        advice="The endpoint doesn't know this call",
    ),
    # the service is at fault -----------------------------------------------------------------------------------
    Row(
        rule="deadline exceeded",
        when=lambda s: s.status == 504,
        action=_A.RETRY,
        kind="timeout",
        tries=3,
        is_outage=True,
    ),
    Row(
        rule="shed",
        when=lambda s: s.status in (408, 499),
        action=_A.RETRY,
        kind="timeout",
        is_outage=True,
    ),
    Row(
        rule="unavailable",
        when=lambda s: s.status in (500, 502, 503) or s.status > 504,
        action=_A.RETRY,
        kind="unavailable",
        is_outage=True,
    ),
    Row(
        rule="not JSON",
        when=lambda s: 400 <= s.status < 500 and not s.error.recognised,
        action=_A.RETRY,
        kind="unavailable",
        is_outage=True,
        rewritten=True,
    ),
)
