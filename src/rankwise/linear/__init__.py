"""Least squares behind any features: streamed sums, ridge, solution, pruning and growing."""
