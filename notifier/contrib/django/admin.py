"""Pages of Django's admin: messages that wait for the relay, and notifications that a user was sent. They only
show.

Notifications come from the service's HTTP API. The project's key sees its own notifications, without their
content. No page has the recipient in its URL, so recipients are not in the logs of the project's web server.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import path

from notifier.client.service_requests import list_notifications
from notifier.contrib.django.models import OutboxMessage
from notifier.contrib.django.sending import service_api
from notifier.domain.errors import NotifierError


@admin.register(OutboxMessage)
class OutboxMessageAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django ships no types
    """The waiting messages. Users with permission to view them may also view the pages of sent notifications."""

    list_display = ("id", "channel", "lane", "created_at", "attempts", "last_error")
    list_filter = ("channel", "lane")
    ordering = ("id",)
    #: Not the body: it names a recipient, and may hold a secret.
    fields = list_display

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        page = self.admin_site.admin_view(self.notifications)
        return [path("notifications/", page, name="notifier_notifications"), *super().get_urls()]

    def notifications(self, request: HttpRequest) -> HttpResponse:
        """What was sent to the user whose id is in `user`, or to the address or number posted as `recipient`."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        recipient = request.POST.get("recipient", "").strip()
        if not recipient and request.GET.get("user"):
            recipient = _address(request.GET["user"])
        context = {
            **self.admin_site.each_context(request),
            "title": "Notifications",
            "opts": self.model._meta,
            "recipient": recipient,
            **(_found(recipient, request.POST.get("after")) if recipient else {}),
        }
        return TemplateResponse(request, "admin/notifier/notifications.html", context)


def _address(key: str) -> str:
    """The e-mail address of the user with this primary key."""
    users = get_user_model()
    try:
        user = get_object_or_404(users, pk=key)
    except (ValueError, ValidationError):
        raise Http404 from None
    return str(getattr(user, users.get_email_field_name()))


def _found(recipient: str, after: str | None) -> dict[str, Any]:
    try:
        page = service_api().run(list_notifications(recipient, after))
    except NotifierError as error:
        return {"problem": str(error)}
    return {"items": page["items"], "next": page["next"]}
