"""Inference: batched prediction, ahead-of-time compilation and export."""
