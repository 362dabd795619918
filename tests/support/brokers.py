"""Publishes to brokers like a producer that has never seen this package."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import amqp
import redis

from tests.waiting import patient


def amqp_connection(url: str) -> amqp.Connection:
    """An open, plain AMQP connection."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=patient(5),
        confirm_publish=True,
    )
    connection.connect()
    return connection


def publish_raw(
    url: str,
    routing_key: str,
    body: bytes,
    *,
    headers: dict[str, Any] | None = None,
    content_type: str | None = "application/json",
    content_encoding: str | None = None,
    user_id: str | None = None,
) -> None:
    """Put bytes into a producers' queue: through the exchange on RabbitMQ, in kombu's envelope on Redis."""
    if url.startswith("redis"):
        envelope = envelope_of(body, headers=headers, content_type=content_type, content_encoding=content_encoding)
        push_raw(url, f"notify.{routing_key}", envelope)
        return
    properties: dict[str, Any] = {"delivery_mode": 2}
    if content_type is not None:
        properties["content_type"] = content_type
    if content_encoding is not None:
        properties["content_encoding"] = content_encoding
    if user_id is not None:
        properties["user_id"] = user_id
    message = amqp.Message(body, application_headers=headers or {}, **properties)
    with amqp_connection(url) as connection:
        connection.channel().basic_publish_confirm(
            message,
            exchange="notify",
            routing_key=routing_key,
            mandatory=True,
            timeout=patient(30),
            confirm_timeout=patient(30),
        )


def push_raw(url: str, queue: str, entry: bytes) -> None:
    """Push any bytes onto a list."""
    with redis.Redis.from_url(url) as client:
        client.lpush(queue, entry)


def envelope_of(
    body: bytes,
    *,
    headers: Any = None,
    content_type: str | None = "application/json",
    content_encoding: str | None = None,
) -> bytes:
    """kombu's envelope, made by hand as of kombu 5.7."""
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": content_encoding or "utf-8",
            "content-type": content_type,
            "headers": headers or {},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": ""},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    ).encode()
