"""Whether a verdict holds: owners, strangers and thieves by two training loops, judged by every method; ``python -m tests.truth`` writes the tables."""
