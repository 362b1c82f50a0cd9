"""Instruments: each a pure function with a typed result, its numbers, and what follows from them."""
