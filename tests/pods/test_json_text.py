import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flanneld_py.pods import errors, json_text
from flanneld_py.pods.errors import CniError

ROOT = Path(__file__).parents[2]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), VALUES))
def test_agrees_with_the_json_package(value):
    assert json_text.parse_object(json.dumps(value).encode(), "it") == value
    assert json.loads(json_text.encode_json(value)) == value


@pytest.mark.slow
@given(st.dictionaries(st.text(), VALUES))
def test_reads_white_space_and_non_ascii(value):
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        data = f"\r\n\t {text}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate
        return
    assert json_text.parse_object(data, "it") == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"  ",
        b"{",
        b"{}{}",
        b"{} x",
        b"[]",
        b'"text"',
        b"null",
        b"{'a':1}",
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda data: repr(data[:12]),
)
def test_anything_else_is_refused_with_code_6(data):
    with pytest.raises(CniError, match="the thing is no JSON") as caught:
        json_text.parse_object(data, "the thing")
    assert caught.value.code == errors.DECODING_FAILURE


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(CniError):
        json_text.parse_object(data, "it")


def test_says_what_is_wrong_where_the_json_package_is_not_loaded_yet():
    code = f"""\
import sys
sys.path.append({str(ROOT)!r})
from flanneld_py.pods.json_text import parse_object
parse_object(b"{{", "it")
"""
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False)
    assert "CniError: it is no JSON: Expecting property name" in done.stderr


def test_works_without_the_scanner_in_c(monkeypatch):
    monkeypatch.setitem(sys.modules, "_json", None)
    parse = json_text._make_parser()
    assert parse('{"a":[1,2.5]}') == {"a": [1, 2.5]}
    for text in ("{}{}", '{"a":NaN}', '{"a":1e999}'):
        with pytest.raises(ValueError, match=r".+"):
            parse(text)
    assert json.loads(json_text._make_quote()("é\n")) == "é\n"


def test_what_is_no_json_is_not_written():
    with pytest.raises(TypeError, match="set"):
        json_text.encode_json({"a": set()})
