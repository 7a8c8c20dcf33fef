"""Fitted networks, their probabilities, and their graph of operations."""
