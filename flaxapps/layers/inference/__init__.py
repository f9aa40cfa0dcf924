"""Layers that exist for inference only, and not in Keras."""
