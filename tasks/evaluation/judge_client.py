"""A chat endpoint in OpenAI's form, asked patiently: what fails for a moment is tried again, what is wrong is named.

in   messages
out  the text of the reply

The token is read from the environment for each client and goes into one header; it is in no config, manifest or error.
"""

import email.utils
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from tasks.credentials import credential
from tasks.errors import Surroundings, Transient

LONGEST_WAIT: Final = 60.0  # seconds between two tries, whatever the server asks for
LARGEST_REPLY: Final = 2**24  # bytes; a reply is some kilobytes
logger = logging.getLogger("prefstack")


class _Response(NamedTuple):
    """A whole response, read within bounds of time and size."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def short(self) -> str:
        """The beginning of the body for a message, in UTF-8 whatever encoding the headers name."""
        said = " ".join(self.body.decode("utf-8", errors="replace").split())
        return said if len(said) <= 200 else said[:197] + "..."


class JudgeClient:
    """Asks one model of one endpoint; safe to be shared by threads."""

    def __init__(
        self, url: str, model: str, key_env: str | None, *, tries: int, timeout: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        self._address = url.rstrip("/") + "/chat/completions"
        self.host = urlsplit(url).hostname or url
        self._model, self._tries, self._sleep, self._key_env = model, tries, sleep, key_env
        headers = {} if key_env is None else {"Authorization": f"Bearer {judge_token(key_env)}"}
        self._timeout = timeout
        self._http = httpx.Client(headers=headers, timeout=timeout)

    def __enter__(self) -> "JudgeClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, messages: list[dict[str, str]], max_tokens: int) -> str:
        """The reply to `messages`, drawn at temperature 0.

        Raises Surroundings where the endpoint refuses, Transient where it failed every one of the tries.
        """
        request = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
        fault = ""
        for attempt in range(self._tries):
            wait = 2.0**attempt
            try:
                response = self._posted(request)
            except (httpx.InvalidURL, UnicodeError) as error:  # the latter of a name that no resolver takes
                raise Surroundings(f"judge: {self._address} is no address: {error}") from None
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if response.status == 200:
                    reply = _text_of(response.body)
                    if reply is not None:
                        return reply
                    fault = f"answered what is no chat completion: {response.short}"
                elif response.status in (408, 409, 425, 429) or response.status >= 500:
                    fault = f"answered {response.status} ({response.short})"
                    wait = _asked_wait(response.headers, wait)
                else:
                    raise self._refused(response)
            if attempt + 1 < self._tries:
                logger.info("judge     %s %s: try %d of %d", self.host, fault, attempt + 2, self._tries)
                self._sleep(min(wait, LONGEST_WAIT))
        raise Transient(
            f"judge: {self.host} failed {self._tries} times, at last it {fault}; what it has judged is kept, and the "
            "next run asks for the rest"
        )

    def _posted(self, request: Mapping[str, Any]) -> _Response:
        """The endpoint's response; httpx.HTTPError where it fails, takes too long or says too much.

        httpx bounds the wait for each piece alone: an endpoint that sends a byte now and then would be waited for
        for ever.
        """
        until = time.monotonic() + self._timeout
        body = bytearray()
        with self._http.stream("POST", self._address, json=request) as response:
            for piece in response.iter_bytes():
                body += piece
                if time.monotonic() > until:
                    raise httpx.ReadTimeout(f"the reply was not whole after {self._timeout:g} s")
                if len(body) > LARGEST_REPLY:
                    raise httpx.ReadError(f"the reply is larger than {LARGEST_REPLY} bytes")
        return _Response(response.status_code, response.headers, bytes(body))

    def _refused(self, response: _Response) -> Surroundings:
        hint = ""
        if response.status in (401, 403):
            hint = (
                "; it wants a token: name the variable that holds it in evaluate.generate.judge.key_env"
                if self._key_env is None
                else f"; look at the token in {self._key_env}"
            )
        elif response.status == 404:
            hint = f"; look at evaluate.generate.judge.url and model ({self._model})"
        return Surroundings(f"judge: {self.host} refuses with {response.status} ({response.short}){hint}")


def judge_token(key_env: str) -> str:
    """The judge's token out of the environment; Surroundings where there is none."""
    token = credential(key_env)
    if token is None:
        raise Surroundings(f"judge: evaluate.generate.judge.key_env names {key_env}, which is not set")
    return token


def _text_of(body: bytes) -> str | None:
    """The first choice's text; None where the body is something else. Half a surrogate pair becomes `?`."""
    try:
        found: Any = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    return found.encode(errors="replace").decode() if isinstance(found, str) else None


def _asked_wait(headers: Mapping[str, str], otherwise: float) -> float:
    """Seconds that `Retry-After` asks for, as a number or a date."""
    asked = headers.get("retry-after", "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return otherwise
