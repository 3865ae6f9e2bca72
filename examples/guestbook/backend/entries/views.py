"""Answers of the API."""

import json

from django.db import connection
from django.http import HttpRequest, JsonResponse

from entries.models import Entry


def health(_request: HttpRequest) -> JsonResponse:
    """Answer while the process lives. CommonMiddleware has compared Host with ALLOWED_HOSTS before."""
    return JsonResponse({"status": "ok"})


def ready(_request: HttpRequest) -> JsonResponse:
    """Answer once the database answers."""
    with connection.cursor() as cursor:
        cursor.execute("select 1")
    return JsonResponse({"status": "ok"})


def entries(request: HttpRequest) -> JsonResponse:
    """List the entries, or add one."""
    if request.method == "POST":
        given = json.loads(request.body)
        Entry.objects.create(name=given["name"], text=given["text"])
    return JsonResponse({"entries": list(Entry.objects.order_by("id").values("name", "text"))})
