"""``python -m rankwise``."""

from rankwise.cli import main

main()
