"""Views of the shop: shipping writes the order and its mail in one transaction; a page shows what became of the
mail."""

from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from notifier.contrib.django import send, status
from orders.models import Order


def order_page(request: HttpRequest, number: str) -> HttpResponse:
    """The page of an order. It asks `mail` every second until that is ready."""
    return render(request, "orders/order.html", {"order": get_object_or_404(Order, number=number)})


@csrf_exempt  # the scanner in the warehouse has no session
@require_POST
def ship(request: HttpRequest, number: str) -> JsonResponse:
    """POST tracking_number. Answers at once, without asking a mail server or a broker."""
    try:
        with transaction.atomic():
            # Two clicks wait for each other here; the second one finds the result of the first.
            order = get_object_or_404(Order.objects.select_for_update(), number=number)
            if order.shipped_at is not None:
                return _shipped_before(order, request.POST["tracking_number"])
            order.tracking_number = request.POST["tracking_number"]
            order.shipped_at = timezone.now()
            handle = send(
                "order_shipped",
                to=order.email,
                idempotency_key=_key(order),
                reference=order.number,
                context={
                    "customer_name": order.customer_name,
                    "order_id": order.number,
                    "carrier": "Parcel Express",
                    "tracking_url": f"https://track.example.com/{order.tracking_number}",
                    "items": [{"name": order.item, "quantity": 1}],
                },
            )
            order.notification = handle.id
            # If this fails, there is no mail either.
            order.save()
    except IntegrityError:
        return JsonResponse({"error": "another parcel has that tracking number"}, status=409)
    return JsonResponse({"notification": str(handle.id)})


def _shipped_before(order: Order, tracking_number: str) -> JsonResponse:
    """Answer a repeated click like the first one. Another parcel would be another mail, with another key."""
    if order.tracking_number == tracking_number:
        return JsonResponse({"notification": str(order.notification)})
    return JsonResponse({"error": f"it was shipped before, as {order.tracking_number}"}, status=409)


@require_GET
def mail(request: HttpRequest, number: str) -> JsonResponse:
    """What became of the mail; `status` is null until the service has read it."""
    order = get_object_or_404(Order, number=number)
    found = status(order.notification, idempotency_key=_key(order)) if order.notification else None
    return JsonResponse({"status": found and found.status, "is_ready": found is not None and found.is_ready})


def _key(order: Order) -> str:
    """The mail's key. It is never used for another mail, because `status` finds the mail by this key alone."""
    return f"order-{order.number}-shipped-{order.tracking_number}"
