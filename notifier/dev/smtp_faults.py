"""Rules for what a local mail server does wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Where in the dialogue a rule applies. `data` is the command, `body` what follows it.
Stage = Literal["connect", "ehlo", "auth", "mail", "rcpt", "data", "body"]
#: `close_before_reply`: close the connection instead of answering; at `body` the mail is kept, and only its answer
#: is lost. `close_mid_data` (at `body`): close when the first bytes have come; the mail is not kept. `silent`:
#: never answer; at `body` the mail is kept.
Action = Literal["close_before_reply", "close_mid_data", "silent"]


@dataclass(frozen=True, slots=True)
class Rule:
    #: Pattern of the recipient's address ("full@*"), case ignored. At `mail` it is the sender's address. Before
    #: that there is no address yet, and only "*" fits.
    match: str
    #: The answer, such as "451 4.3.0 try later"; None: the ordinary one.
    reply: str | None = None
    #: For how many tries of each address the rule applies; None: always.
    times: int | None = None
    stage: Stage = "rcpt"
    #: Wait before answering. Seconds.
    delay_seconds: float = 0.0
    action: Action | None = None
