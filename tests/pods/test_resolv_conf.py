import pytest

from flanneld_py.pods.errors import CniError
from flanneld_py.pods.resolv_conf import parse_resolv_conf, read_resolv_conf
from flanneld_py.pods.result import Dns

TEXT = """\
# comment
; another
nameserver 10.96.0.10 ignored
nameserver fd00::10

domain cluster.local
search a.local b.local
search c.local
options ndots:5
sortlist 10.0.0.0
nameserver
"""


def test_reads_what_a_result_can_say(tmp_path):
    file = tmp_path / "resolv.conf"
    file.write_text(TEXT)
    wanted = Dns(("10.96.0.10", "fd00::10"), "cluster.local", ("a.local", "b.local", "c.local"), ("ndots:5",))
    assert read_resolv_conf(str(file)) == wanted
    assert parse_resolv_conf("") == Dns()


def test_a_missing_file_is_the_configurations_fault(tmp_path):
    with pytest.raises(CniError, match="resolvConf"):
        read_resolv_conf(str(tmp_path / "absent"))
