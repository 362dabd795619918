"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """One order of one customer."""

    number = models.CharField(max_length=20, unique=True)
    email = models.EmailField()
    customer_name = models.CharField(max_length=100)
    item = models.CharField(max_length=100)
    #: The carrier's number: no two parcels have the same.
    tracking_number = models.CharField(max_length=40, unique=True, null=True)
    shipped_at = models.DateTimeField(null=True)
    #: Of the mail about it: what `notifier.contrib.django.status` is asked for.
    notification = models.UUIDField(null=True)

    def __str__(self) -> str:
        return self.number
