"""The shop's data."""

from django.db import models


class Order(models.Model):
    """One order of one customer."""

    number = models.CharField(max_length=20, unique=True)
    email = models.EmailField()
    customer_name = models.CharField(max_length=100)
    item = models.CharField(max_length=100)
    #: The carrier's number; no two parcels have the same one.
    tracking_number = models.CharField(max_length=40, unique=True, null=True)
    shipped_at = models.DateTimeField(null=True)
    #: The notification about the order, whose status `notifier.contrib.django.status` returns.
    notification = models.UUIDField(null=True)

    def __str__(self) -> str:
        return self.number
