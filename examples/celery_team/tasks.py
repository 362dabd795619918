"""A team with its own Celery: the task does the team's work, and leaves the message to notifier.

If the task fails, Celery tries it again; the idempotency key makes all tries one mail. The team's worker needs no
mail server and no retries of mails, and stores no results: what became of the mail can be asked by its id.
"""

import os

from celery import Celery

from notifier import Client, PublishFailed, PublishRefused

app = Celery("shop", broker=os.environ.get("SHOP_BROKER_URL", "memory://"))
# Connects at the first message, and again after a fork, so each worker process has its own connection.
notifier = Client(producer="shop")


@app.task(autoretry_for=(PublishFailed,), dont_autoretry_for=(PublishRefused,), retry_backoff=True, max_retries=10)
def close_order(number: str, email: str) -> str:
    """Replaces the `send_mail` at the end of a task. Returns the notification's id."""
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
    # The task runs in this process, without a worker.
    print(close_order.apply(("C-1", "ada@example.com")).get())
