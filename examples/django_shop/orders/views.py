"""A parcel leaves: the order and the mail about it are one transaction."""

from django.db import IntegrityError, transaction
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.views.decorators.http import require_POST

from notifier.contrib.django import send
from orders.models import Order


@require_POST
def ship(request: HttpRequest, number: str) -> JsonResponse:
    """POST tracking_number. Answers at once: no mail server and no broker is asked."""
    order = get_object_or_404(Order, number=number)
    order.tracking_number = request.POST["tracking_number"]
    order.shipped_at = timezone.now()
    try:
        with transaction.atomic():
            handle = send(
                "order_shipped",
                to=order.email,
                # Two clicks on "ship" are one mail.
                idempotency_key=f"order-{order.number}-shipped",
                reference=order.number,
                context={
                    "customer_name": order.customer_name,
                    "order_id": order.number,
                    "carrier": "Parcel Express",
                    "tracking_url": f"https://track.example.com/{order.tracking_number}",
                    "items": [{"name": order.item, "quantity": 1}],
                },
            )
            # If this fails, there is no mail either.
            order.save()
    except IntegrityError:
        return JsonResponse({"error": "another parcel has that tracking number"}, status=409)
    return JsonResponse({"notification": str(handle.id)})
