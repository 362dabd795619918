"""What a key may do."""

from __future__ import annotations

import pytest

from notifier.domain.producers import SendingRights
from notifier.operations.api_keys import Holder, NewKey, Scope


def holder(*scopes: Scope, producer: str | None = "shop", templates: tuple[str, ...] | None = None) -> Holder:
    return Holder("0" * 12, "ann", producer, frozenset(scopes), frozenset({"sms"}), templates, None)


@pytest.mark.parametrize(
    ("given", "producer", "may"),
    [
        ({Scope.SEND}, "shop", {Scope.SEND}),
        ({Scope.READ}, "shop", {Scope.READ}),
        ({Scope.OPERATE}, "shop", {Scope.READ, Scope.OPERATE}),
        ({Scope.ADMIN}, "shop", set(Scope)),
        ({Scope.OPERATE}, None, {Scope.READ, Scope.OPERATE}),
        ({Scope.ADMIN}, None, set(Scope) - {Scope.SEND}),
        ({Scope.READ}, None, set()),
        ({Scope.SEND, Scope.OPERATE}, None, {Scope.READ, Scope.OPERATE}),
    ],
)
def test_a_scope_contains_others(given: set[Scope], producer: str | None, may: set[Scope]) -> None:
    found = holder(*given, producer=producer)
    assert {scope for scope in Scope if found.may(scope)} == may
    assert found.sees_everything == (Scope.OPERATE in may)


def test_a_key_limits_channels_and_templates_and_nothing_else() -> None:
    assert holder(Scope.SEND, templates=("order_*",)).rights == SendingRights(
        channels=frozenset({"sms"}), templates=("order_*",)
    )


def test_a_token_is_not_in_its_repr() -> None:
    assert "secret" not in repr(NewKey("0" * 12, "ntf_live_secret"))
    assert holder(Scope.SEND).operator == "ann (key 000000000000)"
