"""NamedTuple and TYPE_CHECKING without `typing`, whose import alone takes 11 of the 20 ms that a CNI call may last.

The modules that the CNI plugin loads take the two from here, all others from `typing`. To a type checker they are the
same thing; at run time the class statement makes a plain `collections.namedtuple`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    __all__ = ["TYPE_CHECKING", "NamedTuple"]
else:
    from collections import namedtuple

    class _FromAnnotations(type):
        """Turns a class statement with annotated fields into a named tuple of these fields."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = tuple(namespace.pop("__annotations__", ()))
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            base = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])  # noqa: PYI024
            return type(name, (base,), {"__slots__": (), **namespace})

    class NamedTuple(metaclass=_FromAnnotations):
        """The base of a class statement whose annotations are the fields of a tuple."""
