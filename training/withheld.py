"""The environment without credentials, for ranks that need none: what a model writes may be run in one of them.

A rule of names, since nobody can list them all, and of values that are addresses with a password in them. It keeps
tokens from being printed or sent by mistake; it is no sandbox: code of the same user can read that user's files.
"""

import re
from collections.abc import Collection, Mapping
from typing import Final

_PARTS: Final = frozenset(
    {
        "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "PASS", "PWD", "KEY", "KEYS",
        "APIKEY", "AUTH", "AUTHORIZATION", "CREDENTIAL", "CREDENTIALS", "HEADERS", "COOKIE", "PAT", "NETRC",
    }
)  # fmt: skip
_ENDS: Final = ("PASSWORD", "SECRET", "TOKEN", "APIKEY", "CONNECTION_STRING")
_HARMLESS: Final = frozenset({"PWD", "OLDPWD", "GPG_KEY"})  # folders; what python's images say of their signer
_WITH_PASSWORD: Final = re.compile(r"\w://[^/\s@]*:[^/\s@]+@")


def without_credentials(environment: Mapping[str, str], also: Collection[str] = ()) -> dict[str, str]:
    """`environment` without what `is_credential` says, and without the variables named in `also`."""
    return {name: value for name, value in environment.items() if name not in also and not is_credential(name, value)}


def is_credential(name: str, value: str) -> bool:
    """Whether a variable is a secret by its name (HF_TOKEN, OPENAI_API_KEY) or an address with a password."""
    upper = name.upper()
    if upper in _HARMLESS:
        return False
    parts = set(upper.split("_"))
    return bool(parts & _PARTS) or upper.endswith(_ENDS) or _WITH_PASSWORD.search(value) is not None
