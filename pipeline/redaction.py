"""The second net under the key: takes it out of whatever is about to be shown or kept, however it is written."""

import base64
import json
import re
from urllib.parse import quote

REDACTED = "[key]"
_PERCENT = re.compile("%[0-9A-F]{2}")
SECRET_CHARACTERS = 8
"""Anything shorter would be cut out of words that are no secret."""


class Redaction:
    """Takes ``secrets`` of at least ``shortest`` characters out of texts and bytes."""

    def __init__(self, *secrets: str | None, shortest: int = SECRET_CHARACTERS) -> None:
        forms = {form for secret in secrets if secret and len(secret) >= shortest for form in written_forms(secret)}
        self._texts = sorted(forms, key=len, reverse=True)  # a form may begin with a shorter one
        self._bytes = [form.encode(errors="surrogateescape") for form in self._texts]

    def finds(self, text: str) -> bool:
        """Whether ``text`` holds one."""
        for form in self._texts:  # noqa: SIM110 - a generator takes twice as long, and every reply is looked at
            if form in text:
                return True
        return False

    def text(self, text: str) -> str:
        """``text`` without them."""
        for form in self._texts:
            text = text.replace(form, REDACTED)
        return text

    def data(self, data: bytes) -> bytes:
        """``data`` without them."""
        for form in self._bytes:
            if form in data:
                data = data.replace(form, REDACTED.encode())
        return data


def written_forms(secret: str) -> set[str]:
    """``secret`` as it is, in a URL, in JSON, and in base64 wherever in the encoded bytes it stands."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {secret, quote(raw, safe=""), quote(raw, safe="/"), json.dumps(secret)[1:-1]}
    forms |= {_PERCENT.sub(lambda found: found[0].lower(), form) for form in forms}
    for before in range(3):
        # characters that also hold bits of the neighbours are left out
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.standard_b64encode, base64.urlsafe_b64encode):
            forms.add(encode(b"\0" * before + raw).decode("ascii")[first:last])
    return forms
