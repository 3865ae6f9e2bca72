"""What the database holds."""

from django.db import models


class Entry(models.Model):
    """What one visitor wrote."""

    name = models.CharField(max_length=80)
    text = models.CharField(max_length=1000)
    written = models.DateTimeField(auto_now_add=True)
