"""``python -m rankwise``."""

from rankwise.cli import console

console()
