"""The Prefect server of this process's settings, as a client; a server that does not answer is one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasks.errors import Surroundings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def api() -> "Iterator[SyncPrefectClient]":
    """A client of the server that PREFECT_API_URL (or a profile) names.

    Raises Surroundings where none is named (never starting a temporary one) or the one named does not answer.
    """
    from httpx import HTTPStatusError, TransportError
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        raise Surroundings("no Prefect server is named: start one with `prefstack up`, and set PREFECT_API_URL")
    try:
        with get_client(sync_client=True) as client:
            yield client
    except TransportError as error:
        raise Surroundings(f"the Prefect server at {url} cannot be reached: {error}") from error
    except HTTPStatusError as error:
        said = " ".join(error.response.text.split())[:300]
        raise Surroundings(f"the Prefect server at {url} answered {error.response.status_code}: {said}") from error


@contextmanager
def asking(times: int) -> "Iterator[None]":
    """For the time of the context Prefect's client asks a server that does not answer `times` times at most.

    It would ask six times, 2, 4, 8, 16 and 32 s apart: for what is shown and no more, that is not worth holding up
    who asks.
    """
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    retries = min(times - 1, PREFECT_CLIENT_MAX_RETRIES.value())
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: retries}):
        yield
