"""Modules loaded without the garbage collector, which finds nothing in them.

Prefect makes some hundred thousand objects as it is loaded, and all of them stay. To look through them again and again
takes a sixth of the time.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """No collection inside; what was made inside is never looked through again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
