"""Looks for a secret in every form in which it could have got somewhere."""

import base64
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

CANARY = "AIzaSyCanary+/q=Z7~k0123456789.abcdefgh"
"""A key with characters that every encoding writes differently."""


def forms(secret: str) -> dict[str, bytes]:
    """Raw, reversed, URL-encoded (either case), and base64 in both alphabets at each alignment."""
    raw = secret.encode()
    found = {"raw": raw, "reversed": raw[::-1], "url": quote(secret, safe="").encode()}
    found["url lower"] = found["url"].replace(b"%2B", b"%2b").replace(b"%2F", b"%2f").replace(b"%3D", b"%3d")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            whole = encode(b"x" * before + raw)
            clear = (before + len(raw)) // 3 * 4  # the ends mix with what stands beside
            found[f"{encode.__name__} {before}"] = whole[4 if before else 0 : clear]
    return found


def traces(data: bytes, secret: str = CANARY) -> list[str]:
    """The forms in which ``data`` holds ``secret``."""
    return [name for name, form in forms(secret).items() if form in data]


def traces_below(folder: Path, secret: str = CANARY) -> dict[str, list[str]]:
    """The same of every file and file name below ``folder``."""
    found = {}
    for path in files_below(folder):
        if held := traces(path.read_bytes(), secret) + traces(str(path).encode(errors="surrogateescape"), secret):
            found[str(path)] = held
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
