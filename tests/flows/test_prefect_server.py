"""Transactions of Prefect's server on SQLite: ours wait for each other, where Prefect's own are refused."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import provide_database_interface
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from flows.prefect_server import PatientSqlite, patient_database


async def one_writes_while_the_other_has_only_read(database: AioSqliteConfiguration) -> list[int]:
    """The rows in the end: 1 of the transaction that read first, 2 of the one that wrote meanwhile, if it could."""
    engine = await database.engine()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE row (number INTEGER)"))
    read, wrote = asyncio.Event(), asyncio.Event()

    async def reader() -> None:
        async with await database.session(engine) as session, database.begin_transaction(session):
            await session.execute(text("SELECT count(*) FROM row"))
            read.set()
            with suppress(TimeoutError):  # in vain where the other one waits for us
                await asyncio.wait_for(wrote.wait(), 1)
            await session.execute(text("INSERT INTO row VALUES (1)"))

    async def writer() -> None:
        await read.wait()
        async with await database.session(engine) as session, database.begin_transaction(session):
            await session.execute(text("INSERT INTO row VALUES (2)"))
        wrote.set()

    await asyncio.gather(reader(), writer())
    async with engine.connect() as connection:
        return [row[0] for row in await connection.execute(text("SELECT number FROM row ORDER BY rowid"))]


def test_a_transaction_that_reads_before_it_writes_is_waited_for(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/server.db"
    assert asyncio.run(one_writes_while_the_other_has_only_read(PatientSqlite(connection_url=url))) == [1, 2]


def test_prefects_own_is_refused_which_is_why_ours_is_there(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/server.db"
    with pytest.raises(OperationalError, match="database is locked"):
        asyncio.run(one_writes_while_the_other_has_only_read(AioSqliteConfiguration(connection_url=url)))


def test_a_server_in_this_process_has_it_on_sqlite_and_prefects_own_on_postgresql() -> None:
    own = {"sqlite+aiosqlite:///server.db": True, "postgresql+asyncpg://user:secret@127.0.0.1/prefect": False}
    for url, ours in own.items():
        with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}), patient_database():
            assert isinstance(provide_database_interface().database_config, PatientSqlite) is ours
