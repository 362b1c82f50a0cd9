"""How each instrument is shown: figures of its results, and what they mean."""
