"""Examples in the OpenAPI document, and descriptions of what the framework does not know."""

from __future__ import annotations

from typing import Any

NOTIFICATION: dict[str, Any] = {
    "idempotency_key": "login-7f3a",
    "channel": "sms",
    "lane": "urgent",
    "to": "+15550100123",
    "template": "login_code",
    "context": {"code": "042137", "valid_minutes": 10},
}

BATCH: dict[str, Any] = {
    "template": "order_shipped",
    "defaults": {"channel": "email", "lane": "bulk", "locale": "en"},
    "batch": [
        {
            "idempotency_key": "order-C-10482-shipped",
            "to": "Ada Okafor <ada@example.com>",
            "context": {
                "customer_name": "Ada Okafor",
                "order_id": "C-10482",
                "carrier": "Parcel Express",
                "tracking_url": "https://track.example.com/PX492817355",
                "items": [{"name": "Ground coffee, 250 g", "quantity": 2}],
            },
        }
    ],
}

ATTACHMENT: dict[str, Any] = {
    "id": "01a2047b-fb2a-7da5-858e-3be3814fe3b1",
    "name": "invoice.pdf",
    "content_type": "application/pdf",
    "size": 48211,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}

RETRY: dict[str, Any] = {
    "filter": {"status": "failed", "provider": "relay-a", "since": "2026-11-22T09:00:00Z"},
    "dry_run": True,
    "rate_per_second": 50,
    "reason": "relay-a is fixed",
}

SUPPRESS: dict[str, Any] = {
    "channel": "email",
    "address": "ada@example.com",
    "scope": "category:digest",
    "reason": "opted_out",
    "detail": "asked for it on the telephone",
}

RECURRING: dict[str, Any] = {
    "name": "digest",
    "cron": "30 9 * * 1-5",
    "zone": "Europe/Berlin",
    "channel": "email",
    "template": "newsletter",
    "context": {"shop": "Example"},
    "recipients": [{"to": "Ada Okafor <ada@example.com>", "context": {"customer_name": "Ada"}}],
}

PREVIEW: dict[str, Any] = {"locale": "fr", "context": {"code": "042137", "valid_minutes": 10}}

#: A search can also answer with a file.
EXPORTS: dict[str, Any] = {
    "description": "A page as JSON, or all results as CSV or JSON lines.",
    "content": {"text/csv": {"schema": {"type": "string"}}, "application/jsonl": {"schema": {"type": "string"}}},
}


def body(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    """Describes the request body of a route that reads the bytes itself."""
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
