"""Parses one mail address: display name, local part and domain, safe in a header and an envelope."""

from __future__ import annotations

import re
from dataclasses import dataclass

from email_validator import EmailNotValidError, validate_email

from notifier.domain.recipient_identity import ascii_domain

#: RFC 5321 section 4.5.3.1.3: a path has at most 256 octets, angle brackets included.
_MAX_ADDRESS = 254
_ANY_DOMAIN = "example.com"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: Ordinary addresses. They skip email-validator, which takes longer than composing a whole mail.
_PLAIN = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@((?:{_LABEL}\.)+[A-Za-z][A-Za-z0-9-]*[A-Za-z0-9])")
_QUOTED = re.compile(r'(?s)"((?:[^"\\]|\\.)*)"')
_NAMED = re.compile(rf"(?s)\s*({_QUOTED.pattern.removeprefix('(?s)')}|[^<>]*)\s*<([^<>]*)>\s*")
#: Control characters, line separators and lone surrogates. In a header each run of them becomes one space.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`Zoë <zoe@bücher.example>`, parsed. The domain is always ASCII; the local part may not be."""

    local: str
    domain: str
    #: Display name on one line, with single spaces.
    name: str = ""

    @property
    def address(self) -> str:
        """The address for the envelope."""
        return f"{self.local}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Whether it can only go to a server with SMTPUTF8 (RFC 6531)."""
        return not self.local.isascii()


def parse_mailbox(text: str) -> Mailbox:
    """Parse `address` or `name <address>`. The name may be quoted, and the domain may be internationalised.

    Raises:
        ValueError: there is not exactly one usable address. The text repeats no part of it.
    """
    named = _NAMED.fullmatch(text)
    name, address = (_clean_name(named[1]), named[3].strip()) if named else ("", text.strip())
    plain = _PLAIN.fullmatch(address)
    if plain and len(plain[1]) <= 64 and len(address) <= _MAX_ADDRESS:
        return Mailbox(plain[1], plain[2], name)
    local, _, written = address.rpartition("@")
    # The same rule as for recipient identities, so that a suppressed address is the address that would be written
    # to.
    try:
        domain = ascii_domain(written)
    except ValueError as error:
        raise ValueError(f"not an e-mail address: {error}") from None
    try:
        # Only the form matters: the intake has decided whether mail to such a domain makes sense. Only the local
        # part is validated, because the validator does not know every domain.
        valid = validate_email(
            f"{local}@{_ANY_DOMAIN}", check_deliverability=False, globally_deliverable=False, strict=True
        )
    except EmailNotValidError as error:
        raise ValueError(f"not an e-mail address: {type(error).__name__}") from None
    if len(valid.local_part.encode()) + 1 + len(domain) > _MAX_ADDRESS:
        raise ValueError(f"not an e-mail address: longer than {_MAX_ADDRESS} bytes")
    return Mailbox(valid.local_part, domain, name)


def _clean_name(text: str) -> str:
    text = UNSAFE.sub(" ", text).strip()
    quoted = _QUOTED.fullmatch(text)
    name = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    # Mail programs show a run of white space in a name as one space (RFC 5322 section 3.2.2).
    return " ".join(name.split())
