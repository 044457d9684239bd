"""JSON as the plugin reads and writes it.

The `json` package is a thin wrapper, in regular expressions, around a scanner written in C; importing it takes 6 ms,
a third of what a CNI call may last. So the scanner is used by itself, and the package only where there is none.
"""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING
from flanneld_py.pods import errors
from flanneld_py.pods.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WHITESPACE = " \t\n\r"
_NO_NUMBERS = frozenset({float("inf"), float("-inf")})


def _parse_float(text: str) -> float:
    value = float(text)
    if value in _NO_NUMBERS:
        raise ValueError(f"{text} is too large a number")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")


class _Scanning:
    """What the C scanner asks its maker for: the attributes of `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_parse_float)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


def _make_parser() -> Callable[[str], Any]:
    try:
        from _json import make_scanner

        scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Scanning)  # type: ignore[arg-type]
    except (ImportError, AttributeError):
        return _parse_by_package

    def parse(text: str) -> Any:
        try:
            value, end = scan(text, 0)
        except (StopIteration, ValueError, SystemError):
            # The scanner takes the words for its errors from the package, and before Python 3.12 stumbles without it.
            return _parse_by_package(text)
        return value if end == len(text) else _parse_by_package(text)

    return parse


def _parse_by_package(text: str) -> Any:
    import json

    return json.loads(text, parse_float=_parse_float, parse_constant=_refuse_constant)


def _make_quote() -> Callable[[str], str]:
    try:
        from _json import encode_basestring_ascii
    except ImportError:
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii


_parse = _make_parser()
_quote = _make_quote()


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object; `what` names it in errors. Raises CniError with code 6."""
    try:
        value = _parse(data.decode().strip(_WHITESPACE))
    except (ValueError, RecursionError) as error:
        raise CniError(errors.DECODING_FAILURE, f"{what} is no JSON", str(error)) from error
    if not isinstance(value, dict):
        raise CniError(errors.DECODING_FAILURE, f"{what} is no JSON object")
    return value


def encode_json(value: object) -> str:
    """Write a value that came from JSON, or was made of the same types, without spaces and in plain ASCII."""
    match value:
        case str():
            return _quote(value)
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case dict():
            return "{" + ",".join(f"{_quote(key)}:{encode_json(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(encode_json, value)) + "]"
        case _:
            raise TypeError(f"{type(value).__name__} is no type of JSON")
