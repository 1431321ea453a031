"""Tokens for other people's servers: from the environment alone, and in no config, manifest or error.

What cannot stand in a header is refused here: a client's own error would quote it, the token with it.
"""

import os

from tasks.errors import Surroundings


def credential(variable: str) -> str | None:
    """The token in the environment's `variable` without white space around it; None where there is none.

    Raises Surroundings where it holds what no token does.
    """
    token = os.environ.get(variable, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise Surroundings(f"{variable} holds a line end or another character that no token has: set it anew")
    return token or None
