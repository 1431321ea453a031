"""Texts -> token ids: template, tokenizer, rows."""
