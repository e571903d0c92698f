"""Where requests may go: the configured base URL, and upload sessions that the service names."""

import ipaddress
import re
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from pipeline.errors import UsageError

_PORTS = {"http": 80, "https": 443}
_GOOGLE_APIS = ".googleapis.com:443"
_UNSAFE = re.compile(r"[^\x21-\x7e]|[\\@]")


def origin(url: str) -> str | None:
    """Scheme, host and port of ``url`` in one spelling; None where it has none or hides something."""
    parts = _split(url)
    if parts is None or parts.scheme not in _PORTS or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme]}"


def checked_base_url(url: str) -> str:
    """``url`` without its trailing slash. Raises ``UsageError`` unless it is https, or plain http to loopback."""
    parts = _split(url)
    if parts is None or origin(url) is None or parts.query or parts.fragment:
        raise UsageError("the base URL must look like https://host or https://host/prefix")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise UsageError("plain http is allowed to this machine only; use https:// for the base URL")
    return url.rstrip("/")


def may_upload_to(url: str, base_url: str) -> bool:
    """Whether an upload session's URL is the base URL's origin, or https on Google's API hosts."""
    target = _session_origin(url)
    if target is None:
        return False
    return target == _known_origin(base_url) or (target.startswith("https://") and target.endswith(_GOOGLE_APIS))


def _session_origin(url: str) -> str | None:
    """``origin(url)``; what stands before the path is the same for session after session."""
    scheme, slashes, rest = url.partition("://")
    host, slash, _ = rest.partition("/")
    return _known_origin(f"{scheme}{slashes}{host}{slash}") if slash and not _UNSAFE.search(url) else origin(url)


_known_origin = lru_cache(maxsize=64)(origin)


def _split(url: str) -> SplitResult | None:
    """Refuses what two URL parsers might read differently: user names, back slashes, blanks, what is not ASCII."""
    if _UNSAFE.search(url):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
