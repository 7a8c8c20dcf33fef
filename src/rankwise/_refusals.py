"""A refused call changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])


def all_or_nothing(method: Method) -> Method:
    """Let a method that raises, at whatever point, leave its object's attributes as they were.

    What an attribute refers to mustn't be changed in place by the method.

    Examples
    --------
    >>> class Counter:
    ...     count = 0
    ...
    ...     @all_or_nothing
    ...     def add(self, n):
    ...         self.count, self.last = self.count + n, 1 / n
    >>> counter = Counter()
    >>> counter.add(2)
    >>> try:
    ...     counter.add(0)
    ... except ZeroDivisionError:
    ...     print(vars(counter))
    {'count': 2, 'last': 0.5}
    """

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return call  # type: ignore[return-value]  # the same signature
