"""The identity of a recipient: one form for each mailbox and each number, however it is spelled.

Suppressions, caps, quotas, searches, complaints and unsubscribe links use the identity. Pages show, and providers
get, what the producer wrote. The identity of an ordinary address is the address in lower case.

A number is E.164 in ASCII digits. The domain of an address goes through UTS 46 (non-transitional) to A-labels:
`bücher.example`, its decomposed form, `BÜCHER。example` and `xn--bcher-kva.example` are one domain. The local part
is put into Unicode's composed form (NFC) and lower case. RFC 5321 lets a server distinguish `Ann@` from `ann@`,
but no server that matters does, and a recipient who opted out as one must not get mail as the other
(docs/explanation/decisions.md). `+tags`, dots, and letters that only look alike are not folded.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from notifier.domain.errors import Fault
from notifier.domain.statuses import Channel

#: A number that may be sent to. Not `\\d`, which matches the digits of every script.
E164 = re.compile(r"\+[1-9][0-9]{6,14}")
#: RFC 5321 section 4.5.3.1: maximum octets of a local part, of a path without its brackets, of a domain.
_MAX_LOCAL, _MAX_ADDRESS, _MAX_DOMAIN = 64, 254, 253
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_A_LABEL = re.compile(r"(?:^|\.)xn--")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_NAME = re.compile(r'(?s)"(?:[^"\\]|\\.)*"|[^<>]*')
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")


def recipient_identity(to: str) -> str:
    """The identity of a recipient, given with or without a display name. A text that is no address and no number
    becomes itself in lower case, so that a search for it, or a report that names it, finds nobody."""
    address = bare_address(to)
    local, at, domain = address.rpartition("@")
    if not at:
        return address.lower()
    try:
        domain = ascii_domain(domain.removesuffix("."))
    except ValueError:
        domain = domain.lower()
    return f"{_folded(local)}@{domain}"


def earlier_forms(to: str) -> tuple[str, ...]:
    """The identities that earlier versions used for this recipient, where they differ from the present one.

    These are the address as it is written, and the address with the domain in its own script. Suppressions of that
    time hold only hashes of these forms.
    """
    identity = recipient_identity(to)
    forms = {bare_address(to).lower()}
    if "xn--" in identity:
        local, _, domain = identity.rpartition("@")
        forms.add(f"{local}@{_shown_domain(domain)}")
    return tuple(sorted(forms - {identity}))


def bare_address(to: str) -> str:
    """The address of `Name <address>`; otherwise the whole text, without spaces around it."""
    text = to.strip()
    if text.endswith(">") and "<" in text:
        text = text[text.rindex("<") + 1 : -1].strip()
    return text


def recipient_faults(to: str, channel: Channel, field: str = "to") -> list[Fault]:
    if _CONTROL.search(to):
        return [Fault(field, "bad_recipient", "contains control characters", "Send the plain address")]
    if channel is Channel.SMS:
        return number_faults(to, field)
    problem = _problem(to)
    return [Fault(field, "not_an_address", problem, "Write it as name@example.com")] if problem else []


def number_faults(number: str, field: str) -> list[Fault]:
    if E164.fullmatch(number):
        return []
    problem = "not an E.164 number"
    if any(char.isdigit() and not char.isascii() for char in number):
        problem = "not an E.164 number: it has digits other than 0 to 9"
    return [Fault(field, "not_e164", problem, "Write it as +15550100123, without spaces")]


@lru_cache(maxsize=4096)
def ascii_domain(domain: str) -> str:
    """The domain in A-labels and lower case. Raises `ValueError`, whose text repeats no part of the domain."""
    lowered = domain.lower()
    if domain.isascii() and not _A_LABEL.search(lowered):
        if len(lowered) <= _MAX_DOMAIN and _HOST.fullmatch(lowered):
            return lowered
        raise ValueError(_domain_problem(lowered))
    # Imported here: almost no address needs it, and publishers should not wait for its tables.
    import idna

    try:
        encoded = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except idna.IDNAError:
        # Registered before IDNA 2008, such as emoji domains: their A-labels work as they are.
        if _HOST.fullmatch(lowered) and all(map(_decodes, lowered.split("."))):
            return lowered
        encoded = ""
    if encoded and not encoded.endswith("."):
        return encoded
    raise ValueError("its domain is not valid as an internationalised domain name (IDNA 2008, UTS 46)")


def _decodes(label: str) -> bool:
    if not label.startswith("xn--"):
        return True
    try:
        shown = label[4:].encode().decode("punycode")
    except UnicodeError:
        return False
    is_text = not any(unicodedata.category(char).startswith("C") for char in shown)
    return is_text and not shown.isascii() and shown.encode("punycode").decode() == label[4:]


def _shown_domain(domain: str) -> str:
    import idna

    try:
        return idna.decode(domain)
    except UnicodeError:
        return domain


def _folded(local: str) -> str:
    return local.lower() if local.isascii() else unicodedata.normalize("NFC", local.lower())


def _problem(to: str) -> str | None:
    address = bare_address(to)
    name = to.strip().removesuffix(">").removesuffix(address).rstrip().removesuffix("<").strip()
    if not _NAME.fullmatch(name):
        return "not one e-mail address, but several, or a name with < or > outside of quotes"
    local, at, domain = address.rpartition("@")
    if not at or not local or not domain:
        return "not an e-mail address"
    if local.startswith('"'):
        return "not an e-mail address that is supported: its local part is in quotes"
    # Composing turns some characters into others: a Greek question mark becomes a semicolon.
    is_visible = local.isascii() or all(map(_is_visible, local))
    if not is_visible or not _LOCAL.fullmatch(unicodedata.normalize("NFC", local)):
        return "not an e-mail address: the part before the @ has characters or dots where none may be"
    if len(local.encode()) > _MAX_LOCAL:
        return f"not an e-mail address: the part before the @ is longer than {_MAX_LOCAL} bytes"
    try:
        domain = ascii_domain(domain)
    except ValueError as error:
        return f"not an e-mail address: {error}"
    if len(local.encode()) + 1 + len(domain) > _MAX_ADDRESS:
        return f"not an e-mail address: it is longer than {_MAX_ADDRESS} bytes"
    return None


def _is_visible(character: str) -> bool:
    """Whether the character is no space and no control character. A zero-width space, for example, makes another
    address that nobody can tell from the first."""
    return character.isascii() or unicodedata.category(character)[0] not in "CZ"


def _domain_problem(domain: str) -> str:
    if domain.startswith("["):
        return "its domain is an IP address in brackets, which is not supported"
    if domain.endswith("."):
        return "its domain ends with a dot"
    if ".." in domain or domain.startswith("."):
        return "a part of its domain is empty"
    if len(domain) > _MAX_DOMAIN or any(len(label) > 63 for label in domain.split(".")):
        return "its domain, or a part of it, is too long"
    return "its domain is not one"
