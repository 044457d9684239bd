import errno
from pathlib import Path

import pytest

from flanneld_py.core.errors import KernelError
from flanneld_py.kernel import sysctl

FORWARDING = ("net", "ipv4", "ip_forward")


@pytest.mark.kernel
def test_a_setting_of_the_own_namespace_is_written(namespace, make_namespace):
    other = make_namespace()

    def work():
        sysctl.ensure_sysctl("1", *FORWARDING)
        return Path("/proc/sys/net/ipv4/ip_forward").read_text(), sysctl.read_sysctl(*FORWARDING)

    assert other.run(sysctl.read_sysctl, *FORWARDING) == "0"
    assert namespace.run(work) == ("1\n", "1")
    assert other.run(sysctl.read_sysctl, *FORWARDING) == "0"


def test_a_setting_that_is_as_wanted_is_not_written():
    # This one cannot be written by anybody.
    sysctl.ensure_sysctl(Path("/proc/sys/kernel/ostype").read_text().strip(), "kernel", "ostype")


def test_a_setting_that_is_not_there_says_so():
    with pytest.raises(KernelError) as caught:
        sysctl.ensure_sysctl("1", "net", "absent")
    assert caught.value.errno == errno.ENOENT


def test_a_setting_that_refuses_the_value_says_so():
    with pytest.raises(KernelError, match="/proc/sys/kernel/ostype"):
        sysctl.ensure_sysctl("other", "kernel", "ostype")


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "../kernel", "a\0b"])
def test_a_part_cannot_lead_elsewhere(part):
    with pytest.raises(ValueError, match="part"):
        sysctl.read_sysctl("net", part)
