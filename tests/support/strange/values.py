"""Bodies of messages: good ones, and ones that a broken or hostile producer makes."""

from __future__ import annotations

import gzip
import json
import pickle
import zlib
from random import Random
from typing import Any
from uuid import UUID

LANES = ("urgent", "normal", "bulk")
KEYS = tuple(f"{channel}.{lane}" for channel in ("email", "sms") for lane in LANES)
TASKS = ("notifier.deliver", "notifier.reconcile", "notifier.call_back", "notifier.dispatch_due")
WORK_QUEUES = (*(f"deliver.{key}" for key in KEYS), "callbacks", "deliver.maintenance")

#: Values in the place of a string, a number, a list or an object.
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    2**64,
    10**400,
    1e308,
    0.1,
    "",
    "x",
    "\0",
    "\u2028",
    "x" * 5000,
    "\ud800",
    [],
    {},
    [[]],
    [None],
    [1, 2],
    {"a": 1},
    {"": ""},
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "١٢٣",
    "{{x}}",
    "ffffffff-ffff-7fff-bfff-ffffffffffff",
    {"__type__": "bytes", "__value__": 5},
    {"__type__": "uuid", "__value__": []},
)

#: JSON that no encoder writes.
_ODD_JSON = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"-1e999",
    b"1E-400",
    b"9" * 5000,
    b"1" * 400,
    b'"\\ud800"',
    b'"\\udc00x"',
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"\xff"',
    b"nul",
    b"",
    b"0x10",
    b"[1,]",
    b'{"a":1,"a":2}',
    b'"\\u0000"',
    b"1e308",
)


def good(rng: Random, key: str) -> dict[str, Any]:
    """A message that is accepted on the queue `key`."""
    message: dict[str, Any] = {"idempotency_key": f"{rng.getrandbits(64):016x}", "producer": "shop"}
    if key.startswith("sms"):
        number = f"+1555010{rng.randrange(100, 199)}"
        return message | {
            "to": number,
            "template": "login_code",
            "context": {"code": "042137", "valid_minutes": 10},
        }
    context = {
        "customer_name": "Ada",
        "order_id": "1",
        "carrier": "PX",
        "tracking_url": "https://t.example.com/1",
        "items": [{"name": "x", "quantity": 1}],
    }
    return message | {"to": f"u{rng.randrange(50)}@example.com", "template": "order_shipped", "context": context}


def mutated(rng: Random, key: str) -> bytes:
    """A body that has something wrong in it, most of the time."""
    message = good(rng, key)
    body = json.dumps(message).encode()
    kind = rng.randrange(9)
    if kind == 0:
        return _flipped(rng, body)
    if kind == 1:
        return body[: rng.randrange(len(body))]
    if kind == 2:
        field = rng.choice([*message, "id", "send_at", "expires_at", "locale", "sender", "metadata", "reference"])
        return json.dumps({**message, field: rng.choice(ODD)}).encode()
    if kind == 3:
        message["context"][rng.choice([*message["context"], "more"])] = rng.choice(ODD)
        return json.dumps(message).encode()
    if kind == 4:
        slot = b'"' + b"\x01slot" + b'"'
        where = {**message, "context": {**message["context"], "more": "\x01slot"}}
        return json.dumps(where).encode().replace(b'"\\u0001slot"', rng.choice(_ODD_JSON)).replace(slot, b"1")
    if kind == 5:
        made_at = rng.choice([0, 1, 2**47, 253402300800000, 2**48 - 1, rng.getrandbits(48)])
        return json.dumps({**message, "id": str(_uuid7(rng, made_at))}).encode()
    if kind == 6:
        return rng.choice(
            [gzip.compress(body), zlib.compress(body), pickle.dumps(message), b"", b"null", b"42", b"[]"]
        )
    if kind == 7:
        return task_body(rng)
    return rng.randbytes(rng.randrange(300))


def task_body(rng: Random) -> bytes:
    """The body of a Celery task, in the right form or not."""
    ids: Any = [str(_uuid7(rng, 1_700_000_000_000)) for _ in range(rng.randrange(4))]
    if rng.random() < 0.3:
        ids = rng.choice(ODD)
    embed: Any = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    if rng.random() < 0.4:
        embed = rng.choice(
            [
                None,
                [],
                "x",
                5,
                {"callbacks": "x"},
                {"chord": {"a": 1}},
                {"errbacks": [{}]},
                {"chain": [5]},
                {"id": 1},
            ]
        )
    shapes: list[Any] = [
        [[ids], {}, embed],
        [[ids], {}, embed],
        [[ids], {}],
        [[ids]],
        [],
        None,
        5,
        "x",
        [[ids], {"a": 1}, embed],
        [[ids, ids], {}, embed],
        [[], {}, embed],
        [{}, {}, {}],
        {"args": [ids], "kwargs": {}},
        {"task": TASKS[0], "id": "1"},
        {"task": TASKS[0], "id": "1", "args": [ids], "kwargs": {}},
        {"task": TASKS[0], "args": 5, "kwargs": 5},
        {"task": {"a": 1}, "args": [], "kwargs": {}},
        rng.choice(ODD),
    ]
    return json.dumps(rng.choice(shapes)).encode()


def task_headers(rng: Random) -> dict[str, Any]:
    """The headers of a task; some are wrong."""
    headers: dict[str, Any] = {
        "lang": "py",
        "task": rng.choice([*TASKS, "celery.map", "celery.backend_cleanup", "no.such.task"]),
        "id": str(_uuid7(rng, 1_700_000_000_000)),
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": "r",
        "parent_id": None,
        "argsrepr": "(1 ids)",
        "kwargsrepr": "{}",
        "origin": "gen1@example.com",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    for _ in range(rng.randrange(3)):
        name = rng.choice(
            [*headers, "callbacks", "chord", "called_directly", "is_eager", "compression", "clock", "args"]
        )
        if rng.random() < 0.3:
            headers.pop(name, None)
        else:
            headers[name] = rng.choice(
                [*ODD, "application/x-gzip", "zlib", "2026-01-01T00:00:00", [1, 2, 3], "x" * 300]
            )
    return headers


def command_body(rng: Random) -> bytes:
    """A body for Celery's remote control; never a command that it knows."""
    shapes: list[Any] = [
        {"method": "no_such", "arguments": {}},
        {"method": ["ping"]},
        {"method": "ping", "destination": 5},
        {"method": "ping", "arguments": 7},
        {"method": "ping", "reply_to": {"exchange": 5, "routing_key": []}},
        *(
            {"method": "ping", "ticket": "t", "reply_to": {"exchange": exchange, "routing_key": key}}
            for exchange in ("notify", "no.such", "amq.topic", "reply.celery.pidbox")
            for key in ("x", "\ud800", "x" * 300)
        ),
        {"method": "ping", "matcher": "x", "pattern": "("},
        {"method": "rate_limit", "arguments": {"task_name": [], "rate_limit": {}}},
        rng.choice(ODD),
        [],
        None,
    ]
    return rng.choice([json.dumps(rng.choice(shapes)).encode(), rng.randbytes(50), b"[" * 5000])


def _uuid7(rng: Random, milliseconds: int) -> UUID:
    value = milliseconds << 80 | rng.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return UUID(int=value & ~(0x3 << 62) | 0x2 << 62)


def _flipped(rng: Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
