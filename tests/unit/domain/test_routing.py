"""Routing and circuits as pure functions."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.routing import (
    MAX_ACCOUNT_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    MIN_CALLS,
    Health,
    Standing,
    closes_circuit,
    held,
    is_drawn,
    is_fault,
    pause_after,
    route,
)
from notifier.domain.statuses import Outcome, Reason, Subject

DRAWS = (0.5, 0.5, 0.5)


def standings(*known: Standing) -> dict[str, Standing]:
    return {standing.provider: standing for standing in known}


def test_without_weights_the_configured_order_is_the_route() -> None:
    assert route(("a", "b"), {}, {}, DRAWS).providers == ("a", "b")


def test_a_paused_or_open_provider_is_passed_over() -> None:
    known = standings(Standing("a", paused=True), Standing("b", open_for_seconds=5.0))
    assert route(("a", "b", "c"), {}, known, DRAWS).providers == ("c",)


def test_a_slow_provider_comes_after_faster_ones() -> None:
    assert route(("a", "b"), {}, standings(Standing("a", is_slow=True)), DRAWS).providers == ("b", "a")


def test_nobody_left_means_waiting_for_the_circuit_that_closes_first() -> None:
    known = standings(
        Standing("a", open_for_seconds=30.0, reason=Reason.PROVIDER_ACCOUNT),
        Standing("b", open_for_seconds=7.0, reason=Reason.PROVIDER_UNAVAILABLE),
    )
    waiting = route(("a", "b"), {}, known, DRAWS)
    assert (waiting.providers, waiting.wait_seconds, waiting.reason) == ((), 7.0, Reason.PROVIDER_UNAVAILABLE)


def test_a_sender_that_is_held_back_somewhere_is_the_reason_why_its_messages_wait() -> None:
    # Others may go through that provider: what waits must not be woken when one can be called.
    known = standings(
        Standing("a", open_for_seconds=5.0, reason=Reason.PROVIDER_UNAVAILABLE),
        Standing("b", open_for_seconds=90.0, reason=Reason.SENDER_REFUSED),
    )
    waiting = route(("a", "b"), {}, known, DRAWS)
    assert (waiting.wait_seconds, waiting.reason) == (5.0, Reason.SENDER_REFUSED)


def test_all_paused_waits_for_an_operator() -> None:
    assert route(("a",), {}, standings(Standing("a", paused=True)), DRAWS).reason is Reason.OPERATOR


def test_none_configured_says_so() -> None:
    assert route((), {}, {}, ()).reason is Reason.NOT_CONFIGURED


def test_weights_share_the_traffic_and_an_operators_weight_wins() -> None:
    random = Random(7)
    first = Counter(
        route(("a", "b", "c"), {"a": 80, "b": 20}, {}, [random.random() for _ in range(3)]).providers[0]
        for _ in range(4000)
    )
    assert first["a"] / 4000 == pytest.approx(0.8, abs=0.03)
    assert "c" not in first
    moved = standings(Standing("a", weight=0), Standing("b", weight=5))
    assert route(("a", "b"), {"a": 80, "b": 20}, moved, DRAWS).providers == ("b",)


def test_routes_are_drawn_if_any_weight_is_above_zero() -> None:
    assert not is_drawn({"a": 0}, [Standing("a"), Standing("b")])
    assert is_drawn({"a": 1}, [Standing("a"), Standing("b")])
    assert is_drawn({}, [Standing("a", weight=5)])
    assert not is_drawn({"a": 1}, [Standing("a", weight=0), Standing("b")])


@given(
    st.lists(st.sampled_from("abcdef"), unique=True, max_size=6),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 100)),
    st.sets(st.sampled_from("abcdef")),
)
def test_a_route_never_holds_a_provider_twice_nor_one_that_is_closed_off(
    configured: list[str], weights: dict[str, int], paused: set[str]
) -> None:
    known = standings(*(Standing(name, paused=True) for name in paused))
    found = route(configured, weights, known, [0.3] * len(configured)).providers
    assert len(set(found)) == len(found)
    assert set(found) <= set(configured) - paused


@pytest.mark.parametrize(
    ("outcome", "subject", "reason", "code", "expected"),
    [
        (Outcome.UNKNOWN, Subject.PROVIDER, Reason.OUTCOME_UNKNOWN, "", True),
        (Outcome.UNAVAILABLE, Subject.PROVIDER, Reason.PROVIDER_UNAVAILABLE, "", True),
        (Outcome.UNAVAILABLE, Subject.PROVIDER, Reason.PROVIDER_UNAVAILABLE, "421 4.3.2", True),
        (Outcome.UNAVAILABLE, Subject.ACCOUNT, Reason.PROVIDER_ACCOUNT, "535", True),
        # A relay that refuses one domain.
        (Outcome.UNAVAILABLE, Subject.DESTINATION, Reason.PROVIDER_ACCOUNT, "554", False),
        (Outcome.UNAVAILABLE, Subject.SENDER, Reason.SENDER_REFUSED, "", False),
        (Outcome.UNAVAILABLE, Subject.RECIPIENT, Reason.PROVIDER_UNAVAILABLE, "421 4.7.0", False),
        (Outcome.UNAVAILABLE, Subject.PROVIDER, Reason.PROVIDER_UNAVAILABLE, "451 4.3.0", False),
        (Outcome.REJECTED, Subject.RECIPIENT, Reason.INVALID_RECIPIENT, "550", False),
        (Outcome.THROTTLED, Subject.PROVIDER, Reason.PROVIDER_THROTTLED, "429", False),
        (Outcome.ACCEPTED, Subject.PROVIDER, None, "", False),
    ],
)
def test_only_the_providers_own_fault_counts(
    outcome: Outcome, subject: Subject, reason: Reason | None, code: str, expected: bool
) -> None:
    assert is_fault(outcome, subject, reason, code) is expected


@given(
    st.sampled_from(Outcome), st.sampled_from(Subject), st.none() | st.sampled_from(Reason), st.text(max_size=5)
)
def test_a_probe_closes_on_any_answer_that_is_not_about_the_provider(
    outcome: Outcome, subject: Subject, reason: Reason | None, code: str
) -> None:
    if subject not in (Subject.ACCOUNT, Subject.PROVIDER):
        assert closes_circuit(outcome, subject, reason, code)
    assert not (closes_circuit(outcome, subject, reason, code) and is_fault(outcome, subject, reason, code))


def test_a_held_sender_is_held_at_its_provider_alone() -> None:
    own = Standing("a", weight=5)
    hold = Standing("a", open_for_seconds=7.0, reason=Reason.SENDER_REFUSED)
    found = held(own, hold)
    assert (found.is_usable, found.reason, found.weight) == (False, Reason.SENDER_REFUSED, 5)
    assert held(own, None) == held(own, Standing("a")) == own
    # The circuit that stays open longer decides.
    assert held(Standing("a", open_for_seconds=9.0, reason=Reason.PROVIDER_ACCOUNT), hold).open_for_seconds == 9.0


def test_a_route_says_whether_somebody_is_left_out() -> None:
    assert not route(("a", "b"), {}, {}, DRAWS).is_partial
    assert route(("a", "b"), {}, standings(Standing("a", open_for_seconds=5.0)), DRAWS).is_partial


def test_a_circuit_opens_on_a_share_of_enough_calls() -> None:
    assert not Health(MIN_CALLS - 1, MIN_CALLS - 1, 1.0).is_bad
    assert Health(MIN_CALLS, MIN_CALLS // 2, 1.0).is_bad
    assert not Health(100, 49, 1.0).is_bad
    assert Health(10, 0, 200.0).is_slow(deadline_seconds=30)


@given(st.integers(1, 10_000))
def test_pauses_double_up_to_their_bound(openings: int) -> None:
    unavailable = pause_after(Reason.PROVIDER_UNAVAILABLE, openings)
    account = pause_after(Reason.PROVIDER_ACCOUNT, openings)
    assert 0 < unavailable <= MAX_PAUSE_SECONDS
    assert 0 < account <= MAX_ACCOUNT_PAUSE_SECONDS
    assert pause_after(Reason.PROVIDER_UNAVAILABLE, openings + 1) >= unavailable
