"""A team with its own Celery: its task does its own work, and leaves the message to notifier.

Celery retries the task if it fails, and the idempotency key makes sure that all tries send one mail. The team's
worker needs no mail server, no retries of mails and no result backend: it asks for the mail's status by its id.
"""

import os

from celery import Celery

from notifier import Client, PublishFailed, PublishRefused

app = Celery("shop", broker=os.environ.get("SHOP_BROKER_URL", "memory://"))
# Connects when it sends the first message, and again after a fork: one connection for each worker process.
notifier = Client(producer="shop")


@app.task(autoretry_for=(PublishFailed,), dont_autoretry_for=(PublishRefused,), retry_backoff=True, max_retries=10)
def close_order(number: str, email: str) -> str:
    """Ends with `send`, which used to be `send_mail`. Returns the notification's id."""
    # … the team's own work …
    handle = notifier.send(
        "order_shipped",
        to=email,
        idempotency_key=f"order-{number}-closed",
        reference=number,
        context={
            "customer_name": "Ada Okafor",
            "order_id": number,
            "carrier": "Parcel Express",
            "tracking_url": f"https://track.example.com/{number}",
            "items": [{"name": "Enamel mug", "quantity": 1}],
        },
    )
    return str(handle.id)


if __name__ == "__main__":
    # No worker is needed here: the task runs in this process.
    print(close_order.apply(("C-1", "ada@example.com")).get())
