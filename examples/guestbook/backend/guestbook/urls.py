"""Paths of the API."""

from django.urls import path
from entries import views

urlpatterns = [
    path("api/health", views.health),
    path("api/ready", views.ready),
    path("api/entries", views.entries),
]
