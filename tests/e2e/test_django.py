"""Django through its stock PostgreSQL backend: its own migrations, the ORM, and what a schema editor changes.

What is expected is what Django answers over PostgreSQL 15.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import django
import pytest
from django.conf import settings

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e

APPLICATIONS = [
    *(f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions")),
    "tests.e2e.library",
]


@pytest.fixture(scope="module")
def library(server: ServerProcess) -> Iterator[Any]:
    """The application's models, their tables made by `migrate`."""
    with server.connect() as connection:
        connection.execute("CREATE DATABASE library")
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": "library", "USER": "shardforge", "HOST": "127.0.0.1",
                "PORT": str(server.port)}  # fmt: skip
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=APPLICATIONS,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        TIME_ZONE="UTC",
    )
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from tests.e2e.library import models

    call_command("migrate", run_syncdb=True, verbosity=0)
    yield models
    connections.close_all()


@pytest.fixture
def books(library: Any) -> Iterator[Any]:
    """The same with ten authors of four books each."""
    authors = [
        library.Author(name=f"a{n}", born=dt.date(1950 + n, 1, 1), data={"n": n, "tags": ["x", n]})
        for n in range(10)
    ]
    library.Author.objects.bulk_create(authors)
    library.Book.objects.bulk_create(
        library.Book(
            title=f"b{n}", author=authors[n % 10], price=Decimal(n) / 4, number=uuid.UUID(int=n),
            lent=dt.timedelta(hours=n),
        )
        for n in range(40)
    )  # fmt: skip
    yield library
    library.Author.objects.all().delete()
    library.Topic.objects.all().delete()


def test_queries_are_answered(books: Any) -> None:
    from django.db.models import Avg, Count, Exists, F, OuterRef, Subquery, Sum, Window
    from django.db.models.functions import ExtractYear, Lower, RowNumber, TruncMonth

    authors, volumes = books.Author.objects, books.Book.objects
    totals = authors.annotate(count=Count("books"), sum=Sum("books__price")).order_by("-sum")
    assert list(totals.values_list("name", "count", "sum")[:2]) == [
        ("a9", 4, Decimal("24.00")),
        ("a8", 4, Decimal("23.00")),
    ]
    assert list(authors.filter(data__n__gt=7).order_by("name").values_list("name", flat=True)) == [
        "a8",
        "a9",
    ]
    assert authors.filter(data__contains={"tags": [3]}).get().name == "a3"
    assert authors.filter(data__has_key="tags", born__year=1955).count() == 1
    assert volumes.filter(title__icontains="B1").count() == 11
    assert volumes.filter(title__iregex=r"^B\d$").count() == 10
    months = volumes.annotate(month=TruncMonth("created"), year=ExtractYear("created"))
    assert (
        sum(row["count"] for row in months.values("month", "year").annotate(count=Count("*"))) == 40
    )
    first = Window(RowNumber(), partition_by=F("author"), order_by=F("price").desc())
    dearest = volumes.annotate(place=first).filter(place=1).order_by("title")
    assert [one.title for one in dearest] == [f"b{n}" for n in range(30, 40)]
    last = volumes.filter(author=OuterRef("pk")).order_by("-price").values("title")[:1]
    assert (
        authors.annotate(last=Subquery(last)).order_by("id").values_list("last", flat=True)[0]
        == "b30"
    )
    assert authors.filter(Exists(volumes.filter(author=OuterRef("pk"), price__gt=9))).count() == 3
    assert volumes.aggregate(Avg("lent"))["lent__avg"] == dt.timedelta(hours=19, minutes=30)
    dearest = volumes.order_by("author", "-price").distinct("author")
    assert dearest.values_list("title", flat=True)[:1].get() == "b30"
    assert volumes.annotate(low=Lower("title")).filter(low="b7").get().number == uuid.UUID(int=7)
    assert sum(1 for _ in volumes.filter(title__startswith="b1").iterator(chunk_size=4)) == 11
    assert [one.author.name for one in volumes.select_related("author").order_by("price")[:2]] == [
        "a0",
        "a1",
    ]


def test_writes_and_their_conflicts(books: Any) -> None:
    from django.db import IntegrityError, transaction
    from django.db.models import F

    again = [books.Author(name="a1", data={"new": True}), books.Author(name="more")]
    books.Author.objects.bulk_create(
        again, update_conflicts=True, unique_fields=["name"], update_fields=["data"]
    )
    assert books.Author.objects.get(name="a1").data == {"new": True}
    assert books.Author.objects.count() == 11
    _, made = books.Author.objects.get_or_create(name="a2")
    assert not made
    assert books.Book.objects.filter(price__gt=5).update(price=F("price") + 1) == 19
    topic = books.Topic.objects.create(name="rivers")
    book = books.Book.objects.get(title="b3")
    book.topics.add(topic)
    assert list(books.Book.objects.filter(topics__name="rivers")) == [book]
    with transaction.atomic():
        books.Author.objects.create(name="kept")
        with pytest.raises(IntegrityError), transaction.atomic():
            books.Author.objects.create(name="kept")
        locked = books.Book.objects.select_for_update(skip_locked=True, of=("self",))
        assert len(locked.select_related("author").filter(price__gt=8)) == 11
    assert books.Author.objects.filter(name="kept").exists()
    with pytest.raises(IntegrityError, match="price_is_not_negative"):
        books.Book.objects.create(title="none", author=book.author, price=-1)
    with pytest.raises(IntegrityError, match="title_once"):
        books.Book.objects.create(title="b3", author=book.author, price=1)


def test_migrations_change_tables_with_rows(books: Any) -> None:
    from django.apps import apps
    from django.db import connection, migrations, models, transaction
    from django.db.migrations.state import ProjectState
    from django.db.models.functions import Lower

    operations = [
        migrations.AddField("book", "pages", models.IntegerField(default=7)),
        migrations.AddField("book", "note", models.TextField(null=True)),
        migrations.AlterField("book", "pages", models.BigIntegerField(default=8, db_index=True)),
        migrations.AlterField("book", "title", models.CharField(max_length=300, unique=True)),
        migrations.AlterField("book", "note", models.CharField(max_length=50, default="")),
        migrations.RenameField("book", "note", "remark"),
        migrations.AddIndex(
            "book", models.Index(fields=["pages"], name="some", condition=models.Q(pages__gt=1))
        ),
        migrations.RenameIndex("book", new_name="others", old_name="some"),
        migrations.AddConstraint("book", models.UniqueConstraint(Lower("title"), name="any_case")),
        migrations.AlterField("author", "born", models.DateTimeField(null=True)),
        migrations.RemoveIndex("book", "others"),
        migrations.RenameModel("Topic", "Label"),
        migrations.AlterModelTable("book", "volume"),
        migrations.RemoveField("book", "number"),
    ]
    state = ProjectState.from_apps(apps)
    with transaction.atomic():
        for operation in operations:
            after = state.clone()
            operation.state_forwards("library", after)
            with connection.schema_editor() as editor:
                operation.database_forwards("library", editor, state, after)
            state = after
        with connection.cursor() as cursor:
            cursor.execute("SELECT title, pages, remark FROM volume WHERE price = 1.25")
            assert cursor.fetchall() == [("b5", 7, "")]
            described = connection.introspection.get_table_description(cursor, "volume")
            constraints = connection.introspection.get_constraints(cursor, "volume")
        transaction.set_rollback(True)
    names = [column.name for column in described]
    assert names == ["id", "title", "author_id", "price", "created", "lent", "pages", "remark"]
    assert {"any_case", "title_once", "price_is_not_negative", "by_price"} <= set(constraints)
    assert books.Book.objects.count() == 40, "all of it was undone"
