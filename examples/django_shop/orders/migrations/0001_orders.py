"""Creates the table of orders."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("number", models.CharField(max_length=20, unique=True)),
                ("email", models.EmailField(max_length=254)),
                ("customer_name", models.CharField(max_length=100)),
                ("item", models.CharField(max_length=100)),
                ("tracking_number", models.CharField(max_length=40, null=True, unique=True)),
                ("shipped_at", models.DateTimeField(null=True)),
            ],
        ),
    )
