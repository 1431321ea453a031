"""Prefect's server, with SQLite transactions that wait for each other.

    python -m flows.prefect_server --host 127.0.0.1 --port 4200        (as `prefect server start`)

Prefect begins a transaction that reads before it writes as a deferred one. SQLite refuses its first write at once,
however long the timeout, when another transaction has written meanwhile ("database is locked"). On a busy machine that
loses events, and with an event the automation that should have brought a crashed run back. Begun as immediate ones,
transactions wait. With PostgreSQL nothing is changed.
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class PatientSqlite(AioSqliteConfiguration):
    """SQLite whose every writing transaction takes the write lock when it begins."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = False
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """As Prefect's, and with the lock even for transactions that only may write."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def patient_database() -> AbstractContextManager[None]:
    """For the time of the context a server in this process has transactions that wait for each other."""
    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    return temporary_database_config(PatientSqlite(connection_url=url) if url.startswith("sqlite") else None)


def main() -> None:
    """Start the server with this command line's options; returns when it is told to stop."""
    from prefect.cli import app

    sys.argv[1:1] = ["server", "start"]
    with patient_database():
        app()


if __name__ == "__main__":
    main()
