"""Symbolic layer calls, graphs of them, and the interpreter that runs a graph on arrays."""
