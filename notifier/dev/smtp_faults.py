"""What a local mail server can do wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Where in the dialogue a rule steps in. `data` is the command, `body` what follows it.
Stage = Literal["connect", "ehlo", "auth", "mail", "rcpt", "data", "body"]
#: `close_before_reply`: close the connection instead of answering; at `body` the mail is kept, only its answer is
#: lost. `close_mid_data` (at `body`): close it when the first bytes have come; the mail is not kept. `silent`:
#: never answer; at `body` the mail is kept.
Action = Literal["close_before_reply", "close_mid_data", "silent"]


@dataclass(frozen=True, slots=True)
class Rule:
    #: Pattern of the recipient's address ("full@*"), case ignored. At `mail` it is the sender's; before that there
    #: is no address yet, and only "*" fits.
    match: str
    #: The answer, e.g. "451 4.3.0 try later"; None leaves the ordinary one.
    reply: str | None = None
    #: The rule holds for so many tries of each address; None: always.
    times: int | None = None
    stage: Stage = "rcpt"
    #: Wait so long before answering.
    delay_seconds: float = 0.0
    action: Action | None = None
