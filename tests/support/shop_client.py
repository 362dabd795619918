"""Runs inside the example shop: makes an order, posts to its page with Django's test client, and prints the
answer.

python -m tests.support.shop_client C-1 PX1
"""

from __future__ import annotations

import sys
import time

import django


def main(number: str, tracking_number: str) -> None:
    """Print the status and the seconds it took."""
    django.setup()
    from django.test import Client
    from orders.models import Order  # type: ignore[import-not-found]  # on the path of the example only

    Order.objects.create(number=number, email="ada@example.com", customer_name="Ada", item="Enamel mug, blue")
    started_at = time.monotonic()
    answer = Client().post(f"/orders/{number}/ship", {"tracking_number": tracking_number})
    print(answer.status_code, f"{time.monotonic() - started_at:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
