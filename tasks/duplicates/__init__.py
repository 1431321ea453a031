"""Texts and pairs that say the same: exactly, nearly, and what hangs together by it."""

import tasks.single_threaded_blas  # noqa: F401  before any module here loads numpy
