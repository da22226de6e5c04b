"""Counts of pixels, and scores as pure functions of them."""
