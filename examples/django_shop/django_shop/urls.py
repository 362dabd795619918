"""The shop's URLs: ship an order, show it, and ask what became of its mail."""

from django.contrib import admin
from django.urls import path
from orders.views import mail, order_page, ship

urlpatterns = [
    path("admin/", admin.site.urls),
    path("orders/<str:number>", order_page),
    path("orders/<str:number>/ship", ship),
    path("orders/<str:number>/mail", mail),
]
