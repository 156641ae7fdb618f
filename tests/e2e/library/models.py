"""Its models, with what Django makes of PostgreSQL: identity, jsonb, uuid, intervals, constraints, partial indexes."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Author(models.Model):
    """Has books."""

    name = models.CharField(max_length=100, unique=True)
    born = models.DateField(null=True)
    data = models.JSONField(default=dict)


class Topic(models.Model):
    """What books are about."""

    name = models.SlugField(unique=True)


class Book(models.Model):
    """Belongs to an author."""

    title = models.CharField(max_length=200, db_index=True)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    topics = models.ManyToManyField(Topic)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    created = models.DateTimeField(auto_now_add=True)
    number = models.UUIDField(null=True)
    lent = models.DurationField(null=True)

    class Meta:
        """What the database checks."""

        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(price__gte=0), name="price_is_not_negative"),
            models.UniqueConstraint(fields=["author", "title"], name="title_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["price", "-created"], name="by_price"),
        ]
