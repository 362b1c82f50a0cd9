"""Synthetic transitions: branches from real states, and the screens that judge them."""
