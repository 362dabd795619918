"""Shows how a project tests that it sends: it looks into the outbox."""

import json

from django.test import TestCase, override_settings

from notifier.contrib.django.models import OutboxMessage
from notifier.domain.errors import InvalidMessage
from orders.models import Order


class Shipping(TestCase):
    """Run with `manage.py test`."""

    def setUp(self) -> None:
        for number in ("C-1", "C-2"):
            Order.objects.create(
                number=number, email="ada@example.com", customer_name="Ada Okafor", item="Ground coffee, 250 g"
            )

    def ship(self, number: str, tracking_number: str = "PX1"):
        return self.client.post(f"/orders/{number}/ship", {"tracking_number": tracking_number})

    def test_a_parcel_that_leaves_sends_one_mail(self) -> None:
        answer = self.ship("C-1")
        self.assertEqual(answer.status_code, 200)
        waiting = OutboxMessage.objects.get()
        self.assertEqual(str(waiting.id), answer.json()["notification"])
        self.assertEqual((waiting.channel, waiting.lane), ("email", "normal"))
        self.assertEqual(json.loads(waiting.body)["context"]["order_id"], "C-1")

    def test_a_parcel_that_cannot_leave_sends_none(self) -> None:
        self.ship("C-1", "PX1")
        answer = self.ship("C-2", "PX1")
        self.assertEqual(answer.status_code, 409)
        self.assertEqual(OutboxMessage.objects.count(), 1)
        self.assertIsNone(Order.objects.get(number="C-2").shipped_at)

    def test_the_same_click_again_sends_nothing_more(self) -> None:
        first, second = self.ship("C-1"), self.ship("C-1")
        self.assertEqual((second.status_code, second.json()), (200, first.json()))
        self.assertEqual(OutboxMessage.objects.count(), 1)

    def test_another_parcel_of_an_order_that_was_shipped_is_refused(self) -> None:
        self.ship("C-1", "PX1")
        answer = self.ship("C-1", "PX2")
        self.assertEqual(answer.status_code, 409)
        self.assertIn("shipped before, as PX1", answer.json()["error"])
        self.assertEqual(Order.objects.get(number="C-1").tracking_number, "PX1")
        self.assertEqual(OutboxMessage.objects.count(), 1)

    @override_settings(NOTIFIER_BROKER_URL="amqp://127.0.0.1:1//")
    def test_the_page_answers_while_the_broker_is_away(self) -> None:
        self.assertEqual(self.ship("C-1").status_code, 200)

    def test_a_wrong_address_is_found_before_anything_is_written(self) -> None:
        Order.objects.filter(number="C-1").update(email="nobody")
        with self.assertRaises(InvalidMessage):
            self.ship("C-1")
        self.assertEqual(OutboxMessage.objects.count(), 0)
