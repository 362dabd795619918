"""The setting for the address to which bounces come back."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

#: RFC 5321 section 4.5.3.1.1 allows 64 octets in a local part; "+" and the token of `notifier.security.tokens`
#: need 49 of them.
MAX_NAME = 15

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")


def _takes_a_token(address: str, others: ValidationInfo) -> str:
    name, _, domain = address.rpartition("@")
    if not _NAME.fullmatch(name) or not _DOMAIN.fullmatch(domain) or len(domain) > 190:
        raise ValueError(
            f"must be like bounces@example.com: before the @ at most {MAX_NAME} letters, digits, - and _, because "
            "a token follows them"
        )
    if others.data.get("hash_key") is None:
        raise ValueError("needs NOTIFIER_HASH_KEY: without a key of your own, anybody could forge a bounce")
    return address


#: `bounces@example.com`. Mail to `bounces+<token>@example.com` must arrive at the same place.
BounceAddress = Annotated[str, AfterValidator(_takes_a_token)]
