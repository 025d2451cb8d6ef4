"""The brain: a person's turn in, an answer out, token by token."""
