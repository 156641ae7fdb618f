"""SQLAlchemy 2 through its stock PostgreSQL dialects: ORM, relationships, reflection, Alembic operations."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    create_engine,
    func,
    inspect,
    select,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    selectinload,
)

from tests.e2e.servers import ServerProcess

pytestmark = pytest.mark.e2e


class Base(DeclarativeBase):
    """The models' registry."""


class Author(Base):
    """Has books."""

    __tablename__ = "sa_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    joined: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    books: Mapped[list[Book]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    """Belongs to an author."""

    __tablename__ = "sa_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(index=True)
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    author_id: Mapped[int] = mapped_column(ForeignKey("sa_author.id", ondelete="CASCADE"))
    author: Mapped[Author] = relationship(back_populates="books")


def test_orm_reflection_and_migrations(server: ServerProcess) -> None:
    engine = create_engine(server.url("psycopg"))
    try:
        Base.metadata.create_all(engine)
        _use_the_models(engine)
        _reflect(engine)
        _migrate(engine)
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()


def _use_the_models(engine: object) -> None:
    with Session(engine) as session:  # type: ignore[arg-type]
        ursula = Author(
            name="Ursula", books=[Book(title="The Dispossessed", price=Decimal("9.50"))]
        )
        session.add_all(
            [ursula, Author(name="Stanisław", books=[Book(title="Solaris", price=Decimal("7.25"))])]
        )
        session.commit()
        assert ursula.joined is not None
        ursula.books.append(Book(title="The Left Hand of Darkness", price=Decimal(10)))
        session.commit()
        statement = (
            select(Author.name, func.count(Book.id), func.sum(Book.price))
            .join(Book)
            .group_by(Author.name)
            .order_by(Author.name)
        )
        assert session.execute(statement).all() == [
            ("Stanisław", 1, Decimal("7.25")), ("Ursula", 2, Decimal("19.50")),
        ]  # fmt: skip
        session.add(Author(name="Ursula"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.delete(session.scalars(select(Author).where(Author.name == "Stanisław")).one())
        session.commit()
        assert session.scalar(select(func.count()).select_from(Book)) == 2


def _reflect(engine: object) -> None:
    inspector = inspect(engine)
    assert {"sa_author", "sa_book"} <= set(inspector.get_table_names())  # type: ignore[attr-defined]
    columns = {c["name"]: c for c in inspector.get_columns("sa_book")}  # type: ignore[attr-defined]
    assert str(columns["price"]["type"]) == "NUMERIC(8, 2)"
    assert not columns["title"]["nullable"]
    assert inspector.get_pk_constraint("sa_book")["constrained_columns"] == ["id"]  # type: ignore[attr-defined]
    key = inspector.get_foreign_keys("sa_book")[0]  # type: ignore[attr-defined]
    assert (key["referred_table"], key["options"]["ondelete"]) == ("sa_author", "CASCADE")
    assert inspector.get_unique_constraints("sa_author")[0]["column_names"] == ["name"]  # type: ignore[attr-defined]
    reflected = MetaData()
    reflected.reflect(engine, only=["sa_book", "sa_author"])  # type: ignore[arg-type]
    assert reflected.tables["sa_book"].c.author_id.foreign_keys


def _migrate(engine: object) -> None:
    with engine.begin() as connection:  # type: ignore[attr-defined]
        operations = Operations(MigrationContext.configure(connection))
        operations.add_column(
            "sa_book", Column("pages", Integer, server_default="100", nullable=False)
        )
        operations.create_index("sa_book_pages", "sa_book", ["pages"])
        operations.alter_column("sa_book", "title", type_=String(200))
        assert connection.exec_driver_sql("SELECT sum(pages) FROM sa_book").scalar() == 200
        operations.drop_index("sa_book_pages")
        operations.drop_column("sa_book", "pages")


def test_asyncpg_dialect(server: ServerProcess) -> None:
    async def go() -> None:
        engine = create_async_engine(server.url("asyncpg"))
        try:
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            async with AsyncSession(engine) as session:
                session.add(
                    Author(name="Octavia", books=[Book(title="Kindred", price=Decimal("8.75"))])
                )
                await session.commit()
                found = (
                    await session.scalars(select(Author).options(selectinload(Author.books)))
                ).all()
                assert [(a.name, [b.title for b in a.books]) for a in found] == [
                    ("Octavia", ["Kindred"])
                ]
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.drop_all)
        finally:
            await engine.dispose()

    asyncio.run(go())
