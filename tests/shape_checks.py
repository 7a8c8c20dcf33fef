"""What jaxtyping's import hook has check a function's annotations."""

from beartype import beartype


def checked(function, **options):
    """By beartype; a function within a function is left alone, as each call makes it anew."""
    if "<locals>" in getattr(function, "__qualname__", ""):
        return function
    return beartype(function, **options)
