"""Recipients who must not be sent to, because of providers, webhooks, bounces, recipients' wishes or operators.

This module replaces addresses by keyed hashes; addresses go no further. A suppression records who made it, when
and why. What an operator does also leaves an operator record.

Crash points: the operator record is written before the suppression. After a crash between the two, the record has
no result and no suppression. The operator sees that nothing came of it and does it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from notifier.domain.errors import Fault, InvalidMessage, WrongSelection
from notifier.domain.recipient_identity import recipient_faults
from notifier.domain.statuses import Channel, SuppressionReason
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import UnsubscribeLink
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.personal_data import UnreadableRecipient
from notifier.store.records import NewSuppression
from notifier.store.suppressions import Noted, SuppressionFilter, SuppressionRepository, SuppressionView

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from notifier.store.mass_alarm import HardBounceWatch

#: The scope of every message to the recipient on the channel.
GLOBAL = "global"

#: The source of a suppression made with the link in a mail.
UNSUBSCRIBE = "unsubscribe"

#: A later end is taken for a mistake.
MAX_AHEAD = timedelta(days=36_500)

#: The source begins with this if an operator did it.
OPERATOR_PREFIX = "operator:"

SENDER_PREFIX = "sender:"

_SCOPE = re.compile(r"(sender|category):[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def sender_scope(identity: str) -> str:
    return f"{SENDER_PREFIX}{identity}"


def category_scope(category: str) -> str:
    return f"category:{category}"


def address_of(recipient: str | None) -> str:
    """The recipient of a notification as it is shown, for `Suppressions.add`.

    Raises:
        WrongSelection: it is redacted, or sealed with a key that is missing.
    """
    if recipient is None or isinstance(recipient, UnreadableRecipient):
        raise WrongSelection("its recipient cannot be read any more: suppress them by their address")
    return recipient


class Suppressions:
    """Adds, ends and finds suppressions. Thread-safe. Every method raises `ServiceUnavailable`.

    `source` says who did it: "provider:<name>", "webhook:<name>", "operator:<login>", "import:<login>", "bounce",
    "unsubscribe".
    """

    def __init__(self, engine: Engine, hash_key: HashKey, watch: HardBounceWatch | None = None) -> None:
        self._rows = SuppressionRepository(engine, watch)
        self._hash_key = hash_key
        self._operator_actions = OperatorActions(engine, hash_key)
        #: Fingerprint of the key of every hash.
        self.fingerprint = hash_key.fingerprint

    def add(
        self,
        *,
        channel: Channel,
        address: str,
        scope: str = GLOBAL,
        reason: SuppressionReason,
        source: str,
        expires_at: datetime | None = None,
        notification_id: UUID | None = None,
        detail: str | None = None,
    ) -> bool:
        """Suppress a recipient within this scope, for ever or until `expires_at`. Returns whether the suppression
        is new.

        Raises:
            InvalidMessage: the address or the scope is invalid, or the suppression would have expired already.
        """
        _refuse(
            [
                *recipient_faults(address, channel, "address"),
                *scope_faults(scope),
                *(expiry_faults(expires_at, self._rows.now()) if expires_at else ()),
            ]
        )
        new = NewSuppression(
            channel=channel,
            address_hash=self._hash_key.recipient(channel, address),
            hash_key=self.fingerprint,
            scope=scope,
            reason=reason,
            source=source,
            expires_at=expires_at,
            notification_id=notification_id,
            detail=detail,
        )
        selected = _selected([new.address_hash], channel, scope, reason)
        return self._recorded(source, "suppress", selected, detail, lambda: self._rows.add([new]))

    def lift(
        self,
        *,
        channel: Channel,
        address: str,
        scope: str = GLOBAL,
        source: str,
        reason: SuppressionReason | None = None,
        detail: str | None = None,
    ) -> bool:
        """End the recipient's suppressions of this scope: all of them, or those with one reason. Returns whether
        there were any. The rows stay, with who ended them and when.

        Raises:
            InvalidMessage: the address or the scope is invalid.
        """
        _refuse([*recipient_faults(address, channel, "address"), *scope_faults(scope)])
        forms = self._hash_key.recipient_forms(channel, address)

        def lift() -> int:
            return sum(self._rows.lift(form, scope, source, reason=reason, detail=detail) for form in forms)

        selected = _selected(forms, channel, scope, reason)
        return self._recorded(source, "lift_suppression", selected, detail, lift)

    def _recorded(
        self, source: str, action: str, selected: Mapping[str, Any], why: str | None, act: Callable[[], int]
    ) -> bool:
        """Call `act`, with an operator record if an operator does it. Returns whether `act` changed anything."""
        if not source.startswith(OPERATOR_PREFIX):
            return act() > 0
        begun = self._operator_actions.begin(source.removeprefix(OPERATOR_PREFIX), action, selected, why)
        changed = act()
        self._operator_actions.note(begun.id, ActionCounts(1, changed), is_finished=True)
        return changed > 0

    def keep(self, new: NewSuppression) -> bool:
        """Add a suppression without checking it. Returns whether it is new."""
        return self._rows.add([new]) > 0

    def unsubscribe(self, ending: UnsubscribeLink) -> bool:
        """End mails of the link's category. Returns whether that is new."""
        scope, reason = category_scope(ending.category), SuppressionReason.UNSUBSCRIBED
        key, id_ = self.fingerprint, ending.notification_id
        new = NewSuppression(
            ending.address_hash, key, Channel.EMAIL, scope, reason, UNSUBSCRIBE, notification_id=id_
        )
        noted = Noted(ending.notification_id, f"they unsubscribed from {ending.category} by its link")
        return self._rows.add([new], noted) > 0

    def resubscribe(self, ending: UnsubscribeLink) -> bool:
        """Undo `unsubscribe`. Other suppressions stay. Returns whether it ended one."""
        scope, reason = category_scope(ending.category), SuppressionReason.UNSUBSCRIBED
        noted = Noted(ending.notification_id, f"they subscribed to {ending.category} again by its link")
        return self._rows.lift(ending.address_hash, scope, UNSUBSCRIBE, reason=reason, noted=noted) > 0

    def find(self, channel: Channel, address: str) -> list[SuppressionView]:
        """Every suppression that this recipient ever had, newest first.

        Raises:
            InvalidMessage: the address is invalid.
        """
        _refuse(recipient_faults(address, channel, "address"))
        return [
            view for form in self._hash_key.recipient_forms(channel, address) for view in self._rows.find(form)
        ]

    def page(
        self, wanted: SuppressionFilter, *, limit: int, before: UUID | None = None
    ) -> tuple[list[SuppressionView], UUID | None]:
        """The newest `limit` suppressions before `before`, and where the next page begins."""
        return self._rows.page(wanted, limit=limit, before=before)

    def all(self, wanted: SuppressionFilter) -> Iterator[SuppressionView]:
        """Every matching suppression, newest first, read as needed."""
        return self._rows.all(wanted)

    def lift_other_keys(self, *, source: str, detail: str | None = None) -> int:
        """End all suppressions made under another key that is lost, because they can no longer be found. Returns
        their number."""
        return self._rows.lift_other_keys(self.fingerprint, source, detail)

    def has_other_key(self) -> bool:
        """Whether any suppression was made under another key and so can no longer be found."""
        return self._rows.has_other_key(self.fingerprint)


def _selected(
    hashes: Sequence[bytes], channel: Channel, scope: str, reason: SuppressionReason | None
) -> dict[str, Any]:
    """The selection for the operator record, which never contains an address."""
    given = {"address_hash": [value.hex() for value in hashes], "channel": channel, "scope": scope}
    return given if reason is None else {**given, "reason": reason}


def scope_faults(scope: str) -> list[Fault]:
    if scope == GLOBAL or _SCOPE.match(scope):
        return []
    fix = "Write global, sender:<identity> or category:<name>"
    return [Fault("scope", "bad_format", "is not a scope", fix)]


def expiry_faults(expires_at: datetime, now: datetime) -> list[Fault]:
    if now < expires_at < now + MAX_AHEAD:
        return []
    if expires_at <= now:
        return [Fault("expires_at", "bad_time", "is in the past", "Leave it out, or give a time in the future")]
    return [Fault("expires_at", "too_far_ahead", "too far in the future", "Leave it out: it then never ends")]


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        raise InvalidMessage(faults)
