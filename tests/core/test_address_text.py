import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flanneld_py.core.prefix import parse_address

LIKE_ADDRESSES = (
    st.text("0123456789.", max_size=16) | st.text("0123456789abcdefF:.%", max_size=24) | st.text(max_size=8)
)


@given(st.ip_addresses().map(str) | LIKE_ADDRESSES)
@example("1.2.3.04")
@example("1.2.3.256")
@example("1.2.3")
@example("1.2.3.٤")
@example("::ffff:1.2.3.4")
def test_takes_what_the_standard_library_takes(text):
    try:
        wanted = ipaddress.ip_address(text)
    except ValueError:
        wanted = None
    if wanted is None or "%" in text:
        with pytest.raises(ValueError, match=r".+"):
            parse_address(text)
    else:
        assert parse_address(text) == (wanted.version, int(wanted))
