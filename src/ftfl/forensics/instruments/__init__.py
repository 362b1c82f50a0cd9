"""Instruments: each a pure function that returns numbers and what follows from them."""
