"""Keys of the HTTP API: operators create, rotate and revoke them; every request presents one.

A token is `ntf_live_<id>_<secret>`, or `ntf_test_…` for a test key. The secret is 256 random bits, so its plain
SHA-256 is enough: there is no dictionary to try, and a slow hash would only slow down every request. The database
never holds the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

from notifier.domain.errors import Fault, WrongSelection
from notifier.domain.producers import TEMPLATE_PATTERN, Origin, ProducerProof, SendingRights
from notifier.domain.statuses import Channel, Lane
from notifier.operations.known_keys import KnownKeys
from notifier.store.api_keys import ApiKeyRepository, KeyView, PlanLeft
from notifier.store.filters import Filter
from notifier.store.operator_actions import ActionCounts, OperatorActions

#: Whether it is a test key → prefix of its tokens.
PREFIXES: Mapping[bool, str] = MappingProxyType({False: "ntf_live", True: "ntf_test"})

_TOKEN = re.compile(r"(ntf_live|ntf_test)_([0-9a-f]{12})_([0-9a-f]{64})\Z")
_PRODUCER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class Scope(StrEnum):
    """What a key may do."""

    SEND = "send"  #: send as its producer, and cancel or reschedule what that producer sent
    READ = "read"  #: read what its producer sent
    OPERATE = "operate"  #: read everything, retry and cancel
    ADMIN = "admin"  #: everything, including the bodies of rejected messages


@dataclass(frozen=True, slots=True)
class Grants:
    scopes: tuple[Scope, ...]
    name: str
    producer: str | None = None
    channels: tuple[Channel, ...] | None = None
    templates: tuple[str, ...] | None = None
    rate_per_second: float | None = None
    expires_at: datetime | None = None
    #: Messages sent with it reach no provider.
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. The token is shown once and stored nowhere."""

    id: str
    token: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r})"


class Owned(Protocol):
    """Anything that belongs to a producer: a notification, or a recurring one."""

    @property
    def producer(self) -> str: ...
    @property
    def is_test(self) -> bool: ...
    @property
    def channel(self) -> str: ...
    @property
    def template(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """Who makes a request: the owner of a valid key, or a person whom the identity provider has identified."""

    #: None: a person. A person has no producer and sees everything.
    key_id: str | None
    name: str
    producer: str | None
    scopes: frozenset[Scope]
    channels: frozenset[str] | None
    templates: tuple[str, ...] | None
    rate_per_second: float | None
    #: The holder sends and sees only tests.
    is_test: bool = False
    #: What the key's producer may send, over HTTP or the broker.
    producer_rights: SendingRights = field(default_factory=SendingRights)

    @property
    def operator(self) -> str:
        """The holder's name in operator records. Unique, and it tells how the holder was identified."""
        return f"{self.name} (OIDC)" if self.key_id is None else f"{self.name} (key {self.key_id})"

    @property
    def origin(self) -> Origin:
        """The origin of messages that the holder sends."""
        return Origin(ProducerProof.API_KEY, f"key:{self.key_id}", is_test=self.is_test)

    @property
    def share(self) -> str:
        """Whose share of limited resources a request uses: the key's, or the person's."""
        return self.key_id or self.operator

    @property
    def sees_everything(self) -> bool:
        return self.key_id is None or self.may(Scope.OPERATE)

    @property
    def visible(self) -> Filter:
        """What the holder may see, as conditions of a search."""
        if self.sees_everything:
            return Filter()
        return Filter(
            producer=self.producer,
            is_test=self.is_test,
            channels=None if self.channels is None else tuple(sorted(self.channels)),
            templates=self.templates,
        )

    def sees(self, one: Owned) -> bool:
        """Whether the holder may read this notification, and act on it if the holder may send. Unless the holder
        sees everything, the notification must belong to the key's producer, be a test exactly if the key is a
        test key, and have a channel and template that the key allows."""
        if self.sees_everything:
            return True
        is_its_own = one.producer == self.producer and one.is_test == self.is_test
        return is_its_own and self.rights.contain(one.channel, one.template)

    def sees_template(self, channel: Channel, name: str) -> bool:
        return not self.template_faults(channel, name)

    def template_faults(self, channel: Channel, name: str) -> list[Fault]:
        """Why the holder may not see this template. What the key or its producer may not send, the holder may not
        see either."""
        if self.sees_everything:
            return []
        place: Any = {"channel": channel, "lane": Lane.NORMAL, "template": name}
        of_key = self.rights.faults(owner="this key", remedy="use a key that may", **place)
        limits = replace(self.producer_rights, lanes=None)
        owner = f"the producer {self.producer}"
        remedy = f"have it added to [producers.{self.producer}] in notifier.toml"
        return of_key or limits.faults(owner=owner, remedy=remedy, **place)

    def own_html_faults(self) -> list[Fault]:
        """Why the holder may not see a template that writes its producer's own HTML."""
        return [] if self.sees_everything else self.producer_rights.own_html_faults(self.producer or "")

    def faults(self, channel: Channel, lane: Lane, template: str) -> list[Fault]:
        return self.rights.faults(
            owner="this key", remedy="use a key that may", channel=channel, lane=lane, template=template
        )

    def may(self, scope: Scope) -> bool:
        """Whether the holder has this scope, or one that includes it.

        Without a producer, there is nobody to send for, and nothing to read except everything.
        """
        reads_all = self.key_id is None or bool({Scope.OPERATE, Scope.ADMIN} & self.scopes)
        if self.producer is None and (scope is Scope.SEND or not reads_all):
            return False
        if Scope.ADMIN in self.scopes or scope in self.scopes:
            return True
        return scope is Scope.READ and Scope.OPERATE in self.scopes

    @property
    def rights(self) -> SendingRights:
        """What the holder may send, if they may send. These rights also limit what they read of their
        producer's."""
        return SendingRights(channels=self.channels, templates=self.templates)


class ApiKeys:
    """Creates and checks keys. Thread-safe. Valid keys are cached for `KNOWN_SECONDS`. Every method except `known`
    raises `ServiceUnavailable`."""

    def __init__(
        self,
        repository: ApiKeyRepository,
        operator_actions: OperatorActions,
        producers: Mapping[str, SendingRights] = MappingProxyType({}),
    ) -> None:
        self._repository = repository
        self._operator_actions = operator_actions
        #: Producer → what it may send. Producers that are not listed have no limits.
        self._producers = producers
        self._known: KnownKeys[Holder] = KnownKeys()

    def create(self, grants: Grants, *, operator: str) -> NewKey:
        """Create a key. Raises `WrongSelection` if the grants contradict each other."""
        _check(grants)
        return self._make(_columns(grants), operator, "create_key")

    def rotate(self, key_id: str, *, overlap_seconds: float, operator: str) -> NewKey:
        """Create another key with the same grants. The old key stays valid for `overlap_seconds`, so that its
        holder can switch without a gap.

        Raises:
            NotFound: there is no such key.
            WrongSelection: the key is no longer valid.
        """
        old = self._repository.find(key_id)
        view = self._repository.view(key_id)
        if old is None or not old.is_valid:
            raise WrongSelection(f"the key {key_id} is not valid any more: create a new one")
        columns = {one.name: getattr(view, one.name) for one in fields(Grants)}
        made = self._make(columns | {"rotated_from": key_id}, operator, "rotate_key")
        self._repository.expire_in(key_id, overlap_seconds)
        self._known.clear()
        return made

    def revoke(self, key_id: str, *, operator: str, reason: str | None = None) -> bool:
        """Revoke a key: at once in this process, within `KNOWN_SECONDS` in others. Returns False if it was already
        revoked. Raises `NotFound`."""
        self._repository.view(key_id)
        begun = self._operator_actions.begin(operator, "revoke_key", {"key": key_id}, reason)
        changed = self._repository.revoke(key_id)
        self._known.clear()
        self._operator_actions.note(begun.id, ActionCounts(1, int(changed)), is_finished=True)
        return changed

    def plans_left(self, key_id: str) -> Sequence[PlanLeft]:
        """Recurring notifications that continue without the key, because the service sends them, until somebody
        pauses them. Those that the key made or changed come first. Raises `NotFound`."""
        view = self._repository.view(key_id)
        return self._repository.plans_left(view, self._holder(view).operator)

    def list(self) -> Sequence[KeyView]:
        """All keys, newest first."""
        return self._repository.all()

    def view(self, key_id: str) -> KeyView:
        """One key. Raises `NotFound`."""
        return self._repository.view(key_id)

    def known(self, token: str) -> Holder | None:
        """The holder of this token, from the cache; None: it was not looked up within `KNOWN_SECONDS`."""
        return self._known.get(_hash(token))

    def holder(self, token: str) -> Holder | None:
        """The holder of this token; None if the token is not valid."""
        shown = _hash(token)
        holder = self._known.get(shown)
        if holder is None:
            read = self._known.begin()
            holder = self._read(token)
            if holder is not None:
                self._known.put(shown, holder, read)
        return holder

    def holder_of(self, key_id: str) -> Holder | None:
        """The holder of the key with this id; None: it is no longer valid. Asks the database each time."""
        found = self._repository.find(key_id)
        return self._holder(found.view) if found is not None and found.is_valid else None

    def _read(self, token: str) -> Holder | None:
        match = _TOKEN.match(token)
        found = self._repository.find(match[2]) if match else None
        if match is None or found is None:
            return None
        if not hmac.compare_digest(_hash(match[3]), found.secret_hash) or not found.is_valid:
            return None
        if match[1] != PREFIXES[found.view.is_test]:
            return None
        if found.is_stale:
            self._repository.touch(found.view.id)
        return self._holder(found.view)

    def _holder(self, view: KeyView) -> Holder:
        return Holder(
            key_id=view.id,
            name=view.name,
            producer=view.producer,
            scopes=frozenset(Scope(scope) for scope in view.scopes),
            channels=None if view.channels is None else frozenset(view.channels),
            templates=None if view.templates is None else tuple(view.templates),
            rate_per_second=view.rate_per_second,
            is_test=view.is_test,
            producer_rights=self._producers.get(view.producer or "", SendingRights()),
        )

    def _make(self, columns: Mapping[str, Any], operator: str, action: str) -> NewKey:
        key_id, secret = secrets.token_hex(6), secrets.token_hex(32)
        begun = self._operator_actions.begin(operator, action, {"key": key_id, "name": columns["name"]}, None)
        self._repository.add({**columns, "id": key_id, "secret_hash": _hash(secret), "created_by": operator})
        self._operator_actions.note(begun.id, ActionCounts(1, 1), is_finished=True)
        return NewKey(key_id, f"{PREFIXES[columns['is_test']]}_{key_id}_{secret}")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _columns(grants: Grants) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(grants).items()}


def _check(grants: Grants) -> None:
    if not grants.scopes:
        raise WrongSelection(f"the key may do nothing: give it scopes of {', '.join(Scope)}")
    _check_names(grants)
    _check_scopes(grants)
    _check_limits(grants)


def _check_names(grants: Grants) -> None:
    if not grants.name or len(grants.name) > 100 or not grants.name.isprintable():
        raise WrongSelection("the name of the key is not 1 to 100 printable characters")
    if grants.producer is not None and not _PRODUCER.match(grants.producer):
        raise WrongSelection("the producer is not 1 to 100 letters, digits, '.', '_' or '-'")


def _check_scopes(grants: Grants) -> None:
    is_operator = Scope.OPERATE in grants.scopes or Scope.ADMIN in grants.scopes
    if grants.is_test and is_operator:
        raise WrongSelection("operate and admin cover everything: a test key may have send and read")
    needs_producer = Scope.SEND in grants.scopes or not is_operator
    if needs_producer and grants.producer is None:
        raise WrongSelection("send, and read alone, are for a producer: name the producer")


def _check_limits(grants: Grants) -> None:
    if grants.channels == () or grants.templates == ():
        raise WrongSelection("the list of channels or of templates is empty: leave it out for all of them")
    for pattern in grants.templates or ():
        if not TEMPLATE_PATTERN.match(pattern):
            raise WrongSelection(f"{pattern!r} is not a pattern of template names, such as 'order_*'")
    if grants.rate_per_second is not None and not grants.rate_per_second > 0:
        raise WrongSelection("the rate is not above 0: give requests per second, such as 50")
