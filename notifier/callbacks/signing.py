"""Signs callbacks as in Standard Webhooks (https://www.standardwebhooks.com), which has libraries in many
languages."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence


def headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a callback, signed with each key, so that a holder of any one key can verify it."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
