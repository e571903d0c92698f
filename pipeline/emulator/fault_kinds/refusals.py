"""Faults that answer with an error and do no work; changes when an error body is added.

The wordings of ``api_errors`` apply; those known only from single reports stand here with their source.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.emulator import api_errors
from pipeline.emulator.api_errors import error, invalid_argument
from pipeline.emulator.fault_kinds.registry import ANSWERS, CHUNKS, FILE_CREATION, Strike, refusal
from pipeline.emulator.model_catalog import INPUT_TOKEN_LIMIT
from pipeline.emulator.plan import Quota
from pipeline.emulator.quota import Dimension, Exceeded, seconds_to_midnight_pacific
from pipeline.emulator.quota import refusal as quota_refusal
from pipeline.emulator.reply import Reply

MINUTE_WAIT_SECONDS = 28.4
SHORT_DAY_WAIT_SECONDS = 34.4
"""A daily violation with a wait of seconds (googleapis/python-genai#2044)."""
MODEL_CALLS = ANSWERS | {"count_tokens", "model_get"}
UPLOADS = FILE_CREATION | CHUNKS | {"upload_start"}

Make = Callable[[Strike], Reply]


def _quota(*dimensions: Dimension, wait_seconds: float | None, limit: int | None = None) -> Make:
    """A 429 as the free tier words it; ``None`` waits until midnight Pacific."""

    def make(strike: Strike) -> Reply:
        fault = strike.fault
        wait = wait_seconds
        if wait is None:
            wait = seconds_to_midnight_pacific(datetime.fromtimestamp(strike.now, UTC))
        value = fault.quota_value if limit is None else limit
        exceeded = [Exceeded(dimension, value, wait) for dimension in dimensions]
        reply = quota_refusal(Quota(free_tier=True), _model(strike), exceeded, fault.retry_info)
        return _worded(reply, fault.message)

    return make


def _fixed(make_reply: Callable[[], Reply]) -> Make:
    return lambda strike: _worded(make_reply(), strike.fault.message)


def _status(code: int, status: str, message: str) -> Make:
    return _fixed(lambda: error(code, status, message))


def _worded(reply: Reply, message: str) -> Reply:
    if message and reply.payload:
        reply.payload["error"]["message"] = message
    return reply


def _storage_full(strike: Strike) -> Reply:
    reply = api_errors.storage_full(20 * 1024**3)
    if strike.fault.retry_info is not None:
        reply.payload["error"]["details"][-1] = api_errors.retry_info(strike.fault.retry_info)
    return reply


def _not_active(strike: Strike) -> Reply:
    return api_errors.file_not_active(_file_identifier(strike))


def _exists(strike: Strike) -> Reply:
    return api_errors.file_exists(_file_identifier(strike))


def _file_identifier(strike: Strike) -> str:
    files = strike.exchange.files
    return files[0].identifier if files else "emulated"


def _model(strike: Strike) -> str:
    """The model asked for, or the word of a call that asks for none."""
    exchange = strike.exchange
    return exchange.target.name if exchange.routes[0] in MODEL_CALLS else "unspecified"


def _no_model(strike: Strike) -> Reply:
    return api_errors.no_model(_model(strike), strike.exchange.target.version, "generateContent")


def _list_wrapped(strike: Strike) -> Reply:
    reply = _worded(api_errors.unavailable(), strike.fault.message)
    reply.payload = [reply.payload]
    return reply


def _redirect(strike: Strike) -> Reply:
    return Reply(status=307, headers={"Location": strike.fault.host + strike.exchange.request.path})


def _service_disabled() -> Reply:
    message = (
        "Generative Language API has not been used in project 0 before or it is disabled. Enable it by visiting "
        "https://console.developers.google.com then retry."
    )
    return error(403, "PERMISSION_DENIED", message, api_errors.error_info("SERVICE_DISABLED"))


refusal("429_rpm", _quota("requests_per_minute", wait_seconds=MINUTE_WAIT_SECONDS))
refusal("429_tpm", _quota("input_tokens_per_minute", wait_seconds=MINUTE_WAIT_SECONDS))
refusal("429_rpd", _quota("requests_per_day", wait_seconds=None))
refusal("429_rpd_short_delay", _quota("requests_per_day", wait_seconds=SHORT_DAY_WAIT_SECONDS))
refusal("429_rpd_and_rpm", _quota("requests_per_day", "requests_per_minute", wait_seconds=SHORT_DAY_WAIT_SECONDS))
# "limit: 0" means that the tier lacks the model, whatever the delay says (continuedev/continue#11799).
refusal("429_limit_zero", _quota("requests_per_day", wait_seconds=55.8, limit=0))
refusal("429_plain", _fixed(lambda: api_errors.exhausted("Resource has been exhausted (e.g. check quota).")))
refusal("429_storage", _storage_full, UPLOADS)
refusal(
    "429_prepaid",
    _fixed(
        lambda: api_errors.exhausted(
            "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects to manage your "
            "project and billing."
        )
    ),
)
refusal("500", _fixed(api_errors.internal))
refusal("502_html", lambda _: api_errors.html_page(502, "Server Error"))
refusal("503", _fixed(api_errors.unavailable))
refusal("503_empty", lambda _: api_errors.empty(503))
refusal("504", _status(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."))
refusal("499", _status(499, "CANCELLED", "The operation was cancelled."))
refusal("408", _status(408, "DEADLINE_EXCEEDED", "Request timed out."))
refusal(
    "401",
    _status(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential.",
    ),
)
refusal(
    "403_leaked",
    _status(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key."),
)
refusal("403_service_disabled", _fixed(_service_disabled))
refusal("400_key_invalid", _fixed(api_errors.key_invalid))
refusal("400_key_expired", _fixed(lambda: api_errors.key_invalid("API key expired. Please renew the API key.")))
refusal(
    "400_location",
    _status(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
)
refusal("400_generic", _fixed(lambda: invalid_argument("Request contains an invalid argument.")))
refusal("400_not_active", _not_active, ANSWERS)
refusal("400_mime", _fixed(lambda: api_errors.unsupported_type("application/cu-seeme")), ANSWERS)
refusal("400_tokens", _fixed(lambda: api_errors.too_many_tokens(1_200_293, INPUT_TOKEN_LIMIT)), ANSWERS)
refusal("404_model", _no_model)
refusal("404_empty", lambda _: api_errors.empty(404))
refusal("413", lambda _: api_errors.html_page(413, "Request Entity Too Large"))
refusal("409_exists", _exists, frozenset({"upload_start", "upload_multipart"}))
refusal("list_wrapped", _list_wrapped)
refusal("redirect", _redirect)
