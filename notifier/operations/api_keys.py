"""Keys of the HTTP API: operators make, rotate and revoke them; every request shows one.

A token is `ntf_live_<id>_<secret>`, or `ntf_test_…` of a test key. The secret is 256 random bits, so its plain
SHA-256 is enough: there is no dictionary to try, and a slow hash would only make every request slow. The database
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
from notifier.store.operator_actions import ActionCounts, Operating

#: By whether it is a test key.
PREFIXES: Mapping[bool, str] = MappingProxyType({False: "ntf_live", True: "ntf_test"})

_TOKEN = re.compile(r"(ntf_live|ntf_test)_([0-9a-f]{12})_([0-9a-f]{64})\Z")
_PRODUCER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class Scope(StrEnum):
    """What a key may do."""

    SEND = "send"  #: send as its producer, and cancel or reschedule what it sent
    READ = "read"  #: read what its producer sent
    OPERATE = "operate"  #: read everything, retry and cancel
    ADMIN = "admin"  #: everything, bodies of rejected messages too


@dataclass(frozen=True, slots=True)
class Grants:
    scopes: tuple[Scope, ...]
    name: str
    producer: str | None = None
    channels: tuple[Channel, ...] | None = None
    templates: tuple[str, ...] | None = None
    rate_per_second: float | None = None
    expires_at: datetime | None = None
    #: What is sent with it reaches no provider.
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class NewKey:
    """The token is shown once and stored nowhere."""

    id: str
    token: str

    def __repr__(self) -> str:
        return f"NewKey(id={self.id!r})"


class Owned(Protocol):
    """A notification, or a recurring one."""

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
    """Who makes a request: the owner of a valid key, or a person whom the identity provider vouches for."""

    #: None: a person. They have no producer, and see all.
    key_id: str | None
    name: str
    producer: str | None
    scopes: frozenset[Scope]
    channels: frozenset[str] | None
    templates: tuple[str, ...] | None
    rate_per_second: float | None
    #: It sends and sees tests, and nothing else.
    is_test: bool = False
    #: What its producer may send, by whatever way.
    producer_rights: SendingRights = field(default_factory=SendingRights)

    @property
    def operator(self) -> str:
        """Their name in operator records: of nobody else, and it tells how we know."""
        return f"{self.name} (OIDC)" if self.key_id is None else f"{self.name} (key {self.key_id})"

    @property
    def origin(self) -> Origin:
        """Of what is sent with it."""
        return Origin(ProducerProof.API_KEY, f"key:{self.key_id}", is_test=self.is_test)

    @property
    def share(self) -> str:
        """Whose share of what is scarce a request takes: the key's, or the person's."""
        return self.key_id or self.operator

    @property
    def sees_everything(self) -> bool:
        return self.key_id is None or self.may(Scope.OPERATE)

    @property
    def visible(self) -> Filter:
        """What it may see, as conditions of a search."""
        if self.sees_everything:
            return Filter()
        return Filter(
            producer=self.producer,
            is_test=self.is_test,
            channels=None if self.channels is None else tuple(sorted(self.channels)),
            templates=self.templates,
        )

    def sees(self, one: Owned) -> bool:
        """Whether it may read this, and act on it if it may send: it is its producer's, a test as the key is one,
        and of a channel and template of the key."""
        if self.sees_everything:
            return True
        is_its_own = one.producer == self.producer and one.is_test == self.is_test
        return is_its_own and self.rights.contain(one.channel, one.template)

    def sees_template(self, channel: Channel, name: str) -> bool:
        return not self.template_faults(channel, name)

    def template_faults(self, channel: Channel, name: str) -> list[Fault]:
        """Why it may not see this template: what its producer or the key may not send, it may not see either."""
        if self.sees_everything:
            return []
        place: Any = {"channel": channel, "lane": Lane.NORMAL, "template": name}
        of_key = self.rights.faults(owner="this key", remedy="use a key that may", **place)
        limits = replace(self.producer_rights, lanes=None)
        owner = f"the producer {self.producer}"
        remedy = f"have it added to [producers.{self.producer}] in notifier.toml"
        return of_key or limits.faults(owner=owner, remedy=remedy, **place)

    def own_html_faults(self) -> list[Fault]:
        """Why it may not see a template that writes its producer's own HTML."""
        return [] if self.sees_everything else self.producer_rights.own_html_faults(self.producer or "")

    def faults(self, channel: Channel, lane: Lane, template: str) -> list[Fault]:
        return self.rights.faults(
            owner="this key", remedy="use a key that may", channel=channel, lane=lane, template=template
        )

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope, or one that contains it.

        Without a producer there is nobody to send for, and nothing to read except everything.
        """
        reads_all = self.key_id is None or bool({Scope.OPERATE, Scope.ADMIN} & self.scopes)
        if self.producer is None and (scope is Scope.SEND or not reads_all):
            return False
        if Scope.ADMIN in self.scopes or scope in self.scopes:
            return True
        return scope is Scope.READ and Scope.OPERATE in self.scopes

    @property
    def rights(self) -> SendingRights:
        """What it may send, if it may send. They also limit what it reads of its producer's."""
        return SendingRights(channels=self.channels, templates=self.templates)


class ApiKeys:
    """Thread-safe. It remembers valid keys for `KNOWN_SECONDS`. Every method but `known` raises
    `ServiceUnavailable`."""

    def __init__(
        self,
        repository: ApiKeyRepository,
        operating: Operating,
        producers: Mapping[str, SendingRights] = MappingProxyType({}),
    ) -> None:
        self._repository = repository
        self._operating = operating
        #: Producer → what it may send; of those left out it is not limited.
        self._producers = producers
        self._known: KnownKeys[Holder] = KnownKeys()

    def create(self, grants: Grants, *, operator: str) -> NewKey:
        """Raises `WrongSelection` if the grants do not go together."""
        _check(grants)
        return self._make(_columns(grants), operator, "create_key")

    def rotate(self, key_id: str, *, overlap_seconds: float, operator: str) -> NewKey:
        """Make another key with the same grants; the old one stays valid for `overlap_seconds`, so that its
        holder can change over without a gap.

        Raises:
            NotFound: there is no such key.
            WrongSelection: it is not valid any more.
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
        """End a key: here now, in other processes within `KNOWN_SECONDS`. Returns whether it was not revoked
        before. Raises `NotFound`."""
        self._repository.view(key_id)
        begun = self._operating.begin(operator, "revoke_key", {"key": key_id}, reason)
        changed = self._repository.revoke(key_id)
        self._known.clear()
        self._operating.note(begun.id, ActionCounts(1, int(changed)), is_finished=True)
        return changed

    def plans_left(self, key_id: str) -> Sequence[PlanLeft]:
        """Recurring notifications that go on without the key, until somebody pauses them: they are made by a key,
        and sent by the service. Those that it made or changed come first. Raises `NotFound`."""
        view = self._repository.view(key_id)
        return self._repository.plans_left(view, self._holder(view).operator)

    def list(self) -> Sequence[KeyView]:
        """Newest first."""
        return self._repository.all()

    def view(self, key_id: str) -> KeyView:
        """Raises `NotFound`."""
        return self._repository.view(key_id)

    def known(self, token: str) -> Holder | None:
        """Who shows this token, if that was found out less than `KNOWN_SECONDS` ago. It asks nobody."""
        return self._known.get(_hash(token))

    def holder(self, token: str) -> Holder | None:
        """Who shows this token; None if the token is not valid."""
        shown = _hash(token)
        holder = self._known.get(shown)
        if holder is None:
            read = self._known.begin()
            holder = self._read(token)
            if holder is not None:
                self._known.put(shown, holder, read)
        return holder

    def holder_of(self, key_id: str) -> Holder | None:
        """Whose key this is; None: it is not valid any more. Asks each time."""
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
        begun = self._operating.begin(operator, action, {"key": key_id, "name": columns["name"]}, None)
        self._repository.add({**columns, "id": key_id, "secret_hash": _hash(secret), "created_by": operator})
        self._operating.note(begun.id, ActionCounts(1, 1), is_finished=True)
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
