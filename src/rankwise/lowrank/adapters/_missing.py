"""The error for a library that isn't there."""

from rankwise.errors import MissingDependencyError


def missing(library: str) -> MissingDependencyError:
    """An error that says what to install."""
    return MissingDependencyError(
        f"{library} isn't installed; run: pip install 'rankwise[{library}]'"
    )
