"""Log-probs of pairs: computed by ranks, kept by content, checked again."""
