"""Adds the notification that was sent about an order."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("orders", "0001_orders"),)
    operations = (migrations.AddField("order", "notification", models.UUIDField(null=True)),)
