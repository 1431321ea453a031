"""Texts and pairs that say the same: exactly, nearly, and what hangs together by it."""
