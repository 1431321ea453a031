"""A run told to people: its story, tables, plots, and the pages made of them."""
