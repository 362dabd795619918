"""A team that has Celery of its own: its task does its own work, and leaves the message to notifier.

Celery tries the task again if it fails; the idempotency key makes all tries one mail. The team's worker knows no
mail server and no retries of mails, and keeps no results: what became of the mail is asked by its id.
"""

import os

from celery import Celery

from notifier import Client, PublishFailed, PublishRefused

app = Celery("shop", broker=os.environ.get("SHOP_BROKER_URL", "memory://"))
# Connects at the first message, again after a fork: one for each worker process.
notifier = Client(producer="shop")


@app.task(autoretry_for=(PublishFailed,), dont_autoretry_for=(PublishRefused,), retry_backoff=True, max_retries=10)
def close_order(number: str, email: str) -> str:
    """What was once `send_mail` at the end of a task. Returns the notification's id."""
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
    # Here without a worker of its own: the task runs in this process.
    print(close_order.apply(("C-1", "ada@example.com")).get())
