"""Writes header values of a mail: folded, encoded where necessary, and never able to start another header.

RFC 5322 section 2.2.3 (folding, lines of at most 78 characters) and RFC 2047 (encoded words of at most 75).
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Iterator

from notifier.providers.mail.address import UNSAFE, Mailbox

_LINE = 78
#: RFC 2047 section 2: maximum length of a line with an encoded word.
_ENCODED_LINE = 76
_ENCODED_WORD = 75
_OVERHEAD = len("=?utf-8?q??=")
#: Q encoding with the safe set of RFC 2047 section 5 (3), which is valid anywhere in a header. A space is written
#: as `_`.
_Q = [f"={byte:02X}" for byte in range(256)]
for _byte in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/":
    _Q[_byte] = chr(_byte)
_Q[0x20] = "_"

#: Characters that stay unencoded in an extended parameter (RFC 2231 section 7, RFC 8187 section 3.2.1).
_ATTRIBUTE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`|~")

_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")


def clean(text: str) -> str:
    """The text in one line without control characters. CR or LF becomes a space, so it never starts a header."""
    return (text if text.isprintable() else UNSAFE.sub(" ", text)).strip()


def unstructured(header: str, value: str) -> str:
    """`header: value`, for Subject, without CRLF at the end. `value` must be `clean`."""
    used = len(header) + 2
    if value.isascii() and "=?" not in value:
        if used + len(value) <= _LINE:
            return f"{header}: {value}"
        folded = _fold(value, used)
        if folded is not None:
            return f"{header}: {folded}"
    return f"{header}: {_encoded(value, used)}"


def address(header: str, mailbox: Mailbox) -> str:
    """`header: name <address>`, without CRLF at the end."""
    if not mailbox.name:
        return f"{header}: {mailbox.address}"
    name = _phrase(mailbox.name, len(header) + 2)
    line_used = len(name) - name.rfind("\n") + len(header)
    joint = " " if line_used + len(mailbox.address) + 5 <= _LINE else "\r\n "
    return f"{header}: {name}{joint}<{mailbox.address}>"


def parameter(header: str, name: str, value: str) -> str:
    """`header; name="value"`, or encoded as in RFC 2231, in numbered pieces if it is long. Without CRLF at the
    end."""
    if value.isascii() and value.isprintable() and not set('"\\') & set(value) and "=?" not in value:
        line = f'{header};\r\n {name}="{value}"'
        if len(value) + len(name) + 4 <= _LINE:
            return line
    # Cut between characters, because some readers decode each piece by itself.
    encoded = [one if one in _ATTRIBUTE else "".join(f"%{byte:02X}" for byte in one.encode()) for one in value]
    room = _LINE - len(name) - len(" *00*=utf-8'';")
    pieces, piece = [], ""
    for unit in encoded:
        if len(piece) + len(unit) > room:
            pieces.append(piece)
            piece = ""
        piece += unit
    pieces.append(piece)
    if len(pieces) == 1:
        return f"{header};\r\n {name}*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    numbered = (f" {name}*{index}*={piece}" for index, piece in enumerate(pieces))
    return ";\r\n".join([header, *numbered])


def _phrase(name: str, used: int) -> str:
    if name.isascii() and "=?" not in name and used + len(name) <= _LINE:
        if _PHRASE.fullmatch(name):
            return name
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _encoded(name, used)


def _fold(value: str, used: int) -> str | None:
    """Break `value` at single spaces; None if a word is too long for a line."""
    words = value.split(" ")
    if max(map(len, words)) >= _LINE - 1:
        return None
    lines, line = [], words[0]
    for word in words[1:]:
        # Unfolding removes only the line break, so a break beside a run of spaces would leave a blank line.
        breakable = word and line and not line.endswith(" ")
        if breakable and used + len(line) + 1 + len(word) > _LINE:
            lines.append(line)
            line, used = word, 1
        else:
            line = f"{line} {word}"
    return "\r\n ".join([*lines, line])


def _encoded(value: str, used: int) -> str:
    """Encoded words that decode to exactly `value`. White space between two of them is ignored."""
    data = value.encode("utf-8")
    # Q takes three characters for each byte outside its set, B four characters for every three bytes.
    q_length = sum(map(len, map(_Q.__getitem__, data)))
    letter, encode, room = ("q", _q, 1.0) if q_length <= (len(data) + 2) // 3 * 4 else ("b", _b, 0.75)
    words = (f"=?utf-8?{letter}?{encode(chunk)}?=" for chunk in _chunks(value, used, encode, room))
    return "\r\n ".join(words)


def _q(data: bytes) -> str:
    return "".join(map(_Q.__getitem__, data))


def _b(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode("ascii")


def _chunks(value: str, used: int, encode: Callable[[bytes], str], room: float) -> Iterator[bytes]:
    """Cut between characters, because each encoded word must be valid by itself (RFC 2047 section 5)."""
    limit = _word_limit(used, room)
    whole = value.encode("utf-8")
    if (len(encode(whole)) if room == 1.0 else len(whole)) <= limit:
        yield whole
        return
    chunk, size = bytearray(), 0.0
    for character in value:
        encoded = character.encode("utf-8")
        width = len(encode(encoded)) if room == 1.0 else len(encoded)
        if chunk and size + width > limit:
            yield bytes(chunk)
            chunk, size, limit = bytearray(), 0.0, _word_limit(1, room)
        chunk += encoded
        size += width
    yield bytes(chunk)


def _word_limit(used: int, room: float) -> float:
    characters = min(_ENCODED_LINE - used, _ENCODED_WORD) - _OVERHEAD
    # Base64 comes in groups of four characters, which hold three bytes.
    return characters if room == 1.0 else characters // 4 * 3
