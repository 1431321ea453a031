"""Start models, from wherever they come."""
