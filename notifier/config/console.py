"""The table `[console]` of notifier.toml: who may sign in with the identity provider, and what they may do."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Groups = tuple[Annotated[str, Field(min_length=1, max_length=500)], ...]
_Claim = Annotated[str, Field(min_length=1, max_length=200)]


class SignInTable(BaseModel):
    """`[console.sign_in]`: which groups of the identity provider have which role. Members of no such group cannot
    sign in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: The claim of the ID token with the person's groups: a list, or a single text.
    groups_claim: _Claim = "groups"
    #: The claim with the person's name for the operator log; unset: a verified `email`, otherwise
    #: `preferred_username`, otherwise `sub`.
    name_claim: _Claim | None = None
    #: Where people open the console, such as https://console.example.com; unset: NOTIFIER_PUBLIC_URL.
    console_url: str | None = None
    #: Groups that see every notification, template and recurring notification.
    read: _Groups = ()
    #: Groups that see everything except what is for admins, and may act.
    operate: _Groups = ()
    #: Groups that may do everything.
    admin: _Groups = ()


class ConsoleTable(BaseModel):
    """`[console]`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: See `SignInTable`.
    sign_in: SignInTable = Field(default_factory=SignInTable)
