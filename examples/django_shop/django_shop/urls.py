"""One page: ship an order."""

from django.urls import path
from orders.views import ship

urlpatterns = [path("orders/<str:number>/ship", ship)]
