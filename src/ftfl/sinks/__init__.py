"""Places a run's numbers are shown besides ``metrics.jsonl``, which alone is the truth."""
