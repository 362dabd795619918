"""What is remembered of keys, how long, and how much of it."""

from __future__ import annotations

from notifier.operations.known_keys import KnownKeys


class Clock:
    """Says what it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_known_from_when_the_database_was_asked() -> None:
    clock = Clock()
    known: KnownKeys[str] = KnownKeys(1.0, 10, clock)
    reading = known.begin()
    clock.now += 0.4
    known.put(b"ann", "Ann", reading)
    clock.now += 0.5
    assert (known.get(b"ann"), known.get(b"bob")) == ("Ann", None)
    clock.now += 0.1
    assert known.get(b"ann") is None


def test_what_was_read_before_a_key_ended_is_not_kept() -> None:
    known: KnownKeys[str] = KnownKeys()
    reading = known.begin()
    known.clear()
    known.put(b"ann", "Ann", reading)
    assert known.get(b"ann") is None
    known.put(b"ann", "Ann", known.begin())
    assert known.get(b"ann") == "Ann"
    known.clear()
    assert known.get(b"ann") is None


def test_the_oldest_goes_when_there_are_too_many() -> None:
    known: KnownKeys[str] = KnownKeys(1000.0, 3)
    for name in ("ann", "bob", "eve", "ann", "tom"):
        known.put(name.encode(), name, known.begin())
    assert [known.get(name) for name in (b"ann", b"bob", b"eve", b"tom")] == ["ann", None, "eve", "tom"]
    assert len(known) == 3


def test_what_is_forgotten_takes_no_place() -> None:
    clock = Clock()
    known: KnownKeys[str] = KnownKeys(1.0, 10, clock)
    for name in (b"ann", b"bob"):
        known.put(name, "x", known.begin())
    clock.now += 2
    late = known.begin()
    clock.now += 2
    known.put(b"eve", "x", late)
    assert len(known) == 0
