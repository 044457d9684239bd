import errno
import json

import pytest

from flanneld_py.core.errors import KernelError
from flanneld_py.pods.answer import answer
from flanneld_py.pods.errors import CniError


def test_a_result_is_written_and_none_is_nothing():
    assert answer(lambda: {"a": 1}) == (0, '{"a":1}')
    assert answer(lambda: None) == (0, "")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (CniError(7, "wrong", "right"), {"code": 7, "msg": "wrong", "details": "right"}),
        (CniError(7, "wrong"), {"code": 7, "msg": "wrong"}),
        (
            KernelError(errno.EPERM, "create it", "not permitted"),
            {"code": 999, "msg": f"[Errno {errno.EPERM}] create it: not permitted"},
        ),
        (ZeroDivisionError("by 0"), {"code": 999, "msg": "unexpected ZeroDivisionError", "details": "by 0"}),
    ],
)
def test_an_error_is_an_object(error, wanted):
    def fail():
        raise error

    status, output = answer(fail)
    assert status == 1
    assert json.loads(output) == {"cniVersion": "1.1.0"} | wanted
