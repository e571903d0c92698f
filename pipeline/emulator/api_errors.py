"""The error bodies of the Gemini API, word for word; changes when the service words an error differently.

The wordings were quoted by users of the live service in issue threads between 2024 and 2026 or stand in its guides;
those that no one has published are plain sentences and say so where they are made.
"""

from typing import Any

from pipeline.emulator.reply import HTML_TYPE, JSON_TYPE, TEXT_TYPE, Reply

SERVICE = "generativelanguage.googleapis.com"
INT64_MAX_SECONDS = "9223372036854775807s"
"""What the service sends as ``retryDelay`` when storage is full (googleapis/python-genai#1172)."""
QUOTA_TEXT = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: "
    "https://ai.dev/rate-limit. "
)

Detail = dict[str, Any]


def error(code: int, status: str, message: str, *details: Detail) -> Reply:
    """The envelope of every error: google.rpc.Status with the HTTP number as ``code``."""
    body: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        body["details"] = list(details)
    return Reply(status=code, payload={"error": body})


def invalid_argument(message: str) -> Reply:
    """A 400 without details."""
    return error(400, "INVALID_ARGUMENT", message)


def bad_fields(violations: list[tuple[str, str]]) -> Reply:
    """Several field violations in one body, joined by newlines (zed-industries/zed#44875)."""
    listed = [{"field": path, "description": text} if path else {"description": text} for path, text in violations]
    detail = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": listed}
    return error(400, "INVALID_ARGUMENT", "\n".join(text for _, text in violations), detail)


def plain_text(status: int, text: str, headers: dict[str, str] | None = None) -> Reply:
    """An answer of the upload server, whose errors are not JSON."""
    return Reply(status=status, body=text.encode(), content_type=TEXT_TYPE, headers=headers or {})


def html_page(status: int, title: str) -> Reply:
    """A page of the front end, which speaks HTML."""
    page = (
        f"<!DOCTYPE html>\n<html lang=en>\n<title>Error {status} ({title})!!1</title>\n<p><b>{status}.</b> {title}.\n"
    )
    return Reply(status=status, body=page.encode(), content_type=HTML_TYPE)


def unknown_path() -> Reply:
    """A path that is no method of the API."""
    return html_page(404, "Not Found")


def error_info(reason: str) -> Detail:
    """The machine-readable reason of an authentication error."""
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": SERVICE},
    }


def no_key() -> Reply:
    """No key was sent."""
    return error(
        403,
        "PERMISSION_DENIED",
        "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other "
        "form of API consumer identity to call this API.",
    )


def key_invalid(message: str = "API key not valid. Please pass a valid API key.") -> Reply:
    """A wrong key is a 400, not a 401 (continuedev/continue#10290)."""
    localized = {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message}
    return error(400, "INVALID_ARGUMENT", message, error_info("API_KEY_INVALID"), localized)


def deadline_too_short(seconds: float, minimum_seconds: int) -> Reply:
    """``X-Server-Timeout`` is under the minimum (livekit/agents#3723)."""
    return invalid_argument(
        f"Manually set deadline {seconds:g}s is too short. Minimum allowed deadline is {minimum_seconds}s."
    )


def no_model(model: str, version: str, method: str) -> Reply:
    """An unknown model, or one that lacks the method."""
    return error(
        404,
        "NOT_FOUND",
        f"models/{model} is not found for API version {version}, or is not supported for {method}. Call ListModels to "
        "see the list of available models and their supported methods.",
    )


def file_missing(identifier: str) -> Reply:
    """A file that was deleted, has expired, never was or belongs to another project."""
    return error(
        403,
        "PERMISSION_DENIED",
        f"You do not have permission to access the File {identifier} or it may not exist.",
    )


def file_not_active(identifier: str) -> Reply:
    """A file used before its processing ended, or after it failed (expectedparrot/edsl#1907)."""
    return error(
        400, "FAILED_PRECONDITION", f"The File {identifier} is not in an ACTIVE state and usage is not allowed."
    )


def file_exists(identifier: str) -> Reply:
    """A chosen name is taken (googleapis/python-genai#913)."""
    return error(409, "ALREADY_EXISTS", f"{identifier} already exists.")


def payload_too_large(limit_bytes: int) -> Reply:
    """The body is over the limit: a 400, not a 413."""
    return invalid_argument(f"Request payload size exceeds the limit: {limit_bytes} bytes.")


def too_many_tokens(tokens: int, limit_tokens: int) -> Reply:
    """The prompt is longer than the model's context."""
    return invalid_argument(
        f"The input token count ({tokens}) exceeds the maximum number of tokens allowed ({limit_tokens})."
    )


def unsupported_type(mime_type: str) -> Reply:
    """A medium that no model reads (googleapis/python-genai#744)."""
    return invalid_argument(f"Unsupported MIME type: {mime_type}")


def retry_info(delay: str) -> Detail:
    """How long to wait, as a Duration string."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota_failure(*violations: Detail) -> Detail:
    """Which quotas were exceeded."""
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": list(violations)}


def help_links() -> Detail:
    """The link that every quota error carries."""
    link = {
        "description": "Learn more about Gemini API quotas",
        "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
    }
    return {"@type": "type.googleapis.com/google.rpc.Help", "links": [link]}


def exhausted(message: str, *details: Detail) -> Reply:
    """Any 429."""
    return error(429, "RESOURCE_EXHAUSTED", message, *details)


def storage_full(limit_bytes: int) -> Reply:
    """All files together are over the project's storage; waiting does not cure it (googleapis/python-genai#1172)."""
    violation = {
        "quotaMetric": f"{SERVICE}/file_storage_bytes",
        "quotaId": "FileStorageBytesPerProject",
        "quotaValue": str(limit_bytes),
    }
    return exhausted(
        f"Quota exceeded for metric: {SERVICE}/file_storage_bytes, limit: {limit_bytes}",
        quota_failure(violation),
        retry_info(INT64_MAX_SECONDS),
    )


def unavailable() -> Reply:
    """The model is overloaded (continuedev/continue#12800)."""
    return error(
        503,
        "UNAVAILABLE",
        "This model is currently experiencing high demand. Spikes in demand are usually temporary. Please try again "
        "later.",
    )


def internal() -> Reply:
    """The service's own failure."""
    return error(
        500,
        "INTERNAL",
        "An internal error has occurred. Please retry or report in "
        "https://developers.generativeai.google/guide/troubleshooting",
    )


def empty(status: int) -> Reply:
    """A status without a body, as the upload path sends it (googleapis/python-genai#2489, #589)."""
    return Reply(status=status, content_type=JSON_TYPE)
