"""Frozen layers: selecting them, caching their outputs, and optimizing them."""
