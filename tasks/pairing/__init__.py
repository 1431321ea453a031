"""Posts -> pairs: which answers are compared, and what their texts become."""
