"""The contract of the queues as an AsyncAPI 3 document, made from the models that read the messages."""

from __future__ import annotations

from typing import Any

from notifier.broker.topology import NOTIFY
from notifier.domain.cloud_events import CONTENT_TYPE
from notifier.domain.message import MAX_BODY_BYTES, json_schema
from notifier.domain.statuses import Channel, Lane

_MESSAGE = {
    "producer": "shop",
    "idempotency_key": "login-7f3a",
    "to": "+15550100123",
    "template": "login_code",
    "context": {"code": "042137", "valid_minutes": 10},
}
_BATCH = {
    "producer": "shop",
    "template": "login_code",
    "defaults": {"context": {"valid_minutes": 10}},
    "batch": [{"to": "+15550100123", "idempotency_key": "login-7f3a", "context": {"code": "042137"}}],
}
_EVENT = {
    "specversion": "1.0",
    "id": "7f3a",
    "source": "https://shop.example.com/logins",
    "type": "com.example.login.asked",
    "data": {name: value for name, value in _MESSAGE.items() if name != "idempotency_key"},
}
#: Schema → its purpose, its content type, an example.
_MESSAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Message": ("One message to one recipient.", "application/json", _MESSAGE),
    "Batch": ("Up to 1000 messages of one channel and lane.", "application/json", _BATCH),
    "CloudEvent": ("A message or a batch as a CloudEvent, structured mode.", CONTENT_TYPE, _EVENT),
}


def async_api() -> dict[str, Any]:
    """AsyncAPI 3.0: the exchange, the routing keys, the messages and their properties, as a producer sees them."""
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in _MESSAGES}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "notifier",
            "version": "1",
            "description": f"SMS and e-mail. Publish a message of at most {MAX_BODY_BYTES} bytes with publisher "
            "confirms, and again with the same idempotency key if no confirmation comes.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "rabbitmq": {
                "host": "rabbitmq.example.com:5671",
                "pathname": "/notifier",
                "protocol": "amqps",
                "protocolVersion": "0.9.1",
                "security": [{"$ref": "#/components/securitySchemes/brokerUser"}],
            }
        },
        "channels": {"notify": _channel(messages)},
        "operations": {
            "accept": {
                "action": "receive",
                "summary": "The service reads what a producer publishes.",
                "channel": {"$ref": "#/channels/notify"},
                "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "bindingVersion": "0.3.0"}},
            }
        },
        "components": {
            "securitySchemes": {"brokerUser": {"type": "userPassword"}},
            "messages": {name: _message(name) for name in _MESSAGES},
            "schemas": _schemas(),
        },
    }


def _channel(messages: dict[str, Any]) -> dict[str, Any]:
    exchange = {"name": NOTIFY.name, "type": NOTIFY.type, "durable": NOTIFY.durable, "autoDelete": False}
    return {
        "address": "{channel}.{lane}",
        "description": "The routing key. Each has a durable queue, `notify.{channel}.{lane}`.",
        "parameters": {
            "channel": {"enum": [*Channel]},
            "lane": {"enum": [*Lane], "description": "How urgent the message is."},
        },
        "messages": messages,
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}},
    }


def _message(name: str) -> dict[str, Any]:
    summary, content_type, example = _MESSAGES[name]
    return {
        "summary": summary,
        "contentType": content_type,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"amqp": {"contentEncoding": "utf-8", "bindingVersion": "0.3.0"}},
        "examples": [{"payload": example}],
    }


def _schemas() -> dict[str, Any]:
    return {name: _moved(schema) for name, schema in json_schema()["$defs"].items()}


def _moved(schema: Any) -> Any:
    """The same schema with references for an AsyncAPI document."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", "#/components/schemas/") if key == "$ref" else _moved(value)
            for key, value in schema.items()
        }
    return [_moved(item) for item in schema] if isinstance(schema, list) else schema
