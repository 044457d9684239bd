"""What a call of the plugin leaves: whatever happens, a result or an error object of the specification."""

from __future__ import annotations

from flanneld_py.core.named_tuple import TYPE_CHECKING, NamedTuple
from flanneld_py.pods import errors, versions
from flanneld_py.pods.errors import CniError, ElsewhereError
from flanneld_py.pods.json_text import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from flanneld_py.pods.fields import Fields


class Answer(NamedTuple):
    """What the plugin's process leaves: exit status and standard output."""

    status: int
    output: str


def answer(work: Callable[[], Fields | None]) -> Answer:
    """Do the work of a call and write its result, or the error object for whatever it raises but ElsewhereError."""
    try:
        result = work()
    except ElsewhereError:
        raise
    except CniError as error:
        return _failed(error.code, error.message, error.details)
    except OSError as error:
        return _failed(errors.INTERNAL, str(error), "")
    except Exception as error:  # noqa: BLE001 - a runtime cannot read a traceback, it can log this
        return _failed(errors.INTERNAL, f"unexpected {type(error).__name__}", str(error))
    return Answer(0, "" if result is None else encode_json(result))


def _failed(code: int, message: str, details: str) -> Answer:
    found: Fields = {"cniVersion": versions.NEWEST, "code": code, "msg": message}
    if details:
        found["details"] = details
    return Answer(1, encode_json(found))
