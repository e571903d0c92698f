"""Which path is which call; changes when a call is added.

Paths: ai.google.dev/api, the service's discovery document of 2026-08-16.
"""

import re
from typing import Final, NamedTuple

ROUTES: Final = frozenset(
    {
        "upload_start",
        "upload_chunk",
        "finalize",
        "query",
        "cancel",
        "upload_multipart",
        "file_get",
        "file_list",
        "file_delete",
        "model_get",
        "model_list",
        "generate",
        "stream",
        "count_tokens",
    }
)
"""Every call by the name that plans and the ledger use."""

_PATH = re.compile(
    r"/(?P<upload>upload/)?(?P<version>v1|v1beta)/(?P<kind>files|models)"
    r"(?:/(?P<name>[^/:]+)(?::(?P<method>\w+))?)?"
)
_PLAIN = {
    ("GET", "files", False): "file_list",
    ("GET", "files", True): "file_get",
    ("DELETE", "files", True): "file_delete",
    ("GET", "models", False): "model_list",
    ("GET", "models", True): "model_get",
}
_METHODS = {"generateContent": "generate", "streamGenerateContent": "stream", "countTokens": "count_tokens"}


class Target(NamedTuple):
    """A call, the API version it was made to and the resource it names."""

    route: str
    version: str
    name: str = ""


def target_of(method: str, path: str) -> Target | None:
    """The call behind a request line; ``upload`` stands for all of the upload server."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    version, kind, name = match["version"], match["kind"], match["name"] or ""
    if match["upload"]:
        return Target("upload", version) if kind == "files" and not name and method in {"POST", "PUT"} else None
    if match["method"]:
        route = _METHODS.get(match["method"]) if method == "POST" and kind == "models" else None
    else:
        route = _PLAIN.get((method, kind, bool(name)))
    return Target(route, version, name) if route else None
