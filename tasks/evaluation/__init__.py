"""What log-probs, answers, verdicts and benchmarks say of a model, and how sure that is."""
