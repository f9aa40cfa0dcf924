"""Numeric primitives and their CPU lowerings."""
