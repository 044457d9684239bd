import errno

import pytest

from netns_lab.machine import SWITCHES, explain_refusal, id_map_of_root, id_map_of_user, read_switches


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.file)
def test_the_switch_that_forbids_is_named_with_its_command(switch):
    text = explain_refusal(errno.EPERM, "unshare user", {switch.file: switch.forbids})
    assert text.endswith(f"; as root run: {switch.mend}")


def test_two_switches_need_two_commands():
    values = {"kernel/unprivileged_userns_clone": "0", "user/max_user_namespaces": "0"}
    text = explain_refusal(errno.EPERM, "unshare user", values)
    assert "userns_clone=1; sysctl -w user.max_user_namespaces" in text


@pytest.mark.parametrize(
    ("code", "what", "hint"),
    [
        (errno.ENOSPC, "unshare user", "sysctl -w user.max_user_namespaces=10000"),
        (errno.EPERM, "unshare user", "--security-opt seccomp=unconfined"),
        (errno.EPERM, "mount proc on /proc", "--security-opt systempaths=unconfined"),
        (errno.EINVAL, "unshare user", "CONFIG_USER_NS"),
        (errno.ENOMEM, "unshare user", "(unshare user)"),
    ],
)
def test_other_refusals_have_their_hint(code, what, hint):
    assert hint in explain_refusal(code, what, {"user/max_user_namespaces": "1000"})


def test_the_switches_of_this_machine_can_be_read():
    assert set(read_switches()) <= {switch.file for switch in SWITCHES}


def test_root_hands_on_every_id_that_it_has():
    assert id_map_of_root("         0          0 4294967295\n") == "0 0 4294967295\n"
    assert id_map_of_root("0 1000 1\n1 100000 65536\n") == "0 0 1\n1 1 65536\n"


def test_anybody_else_becomes_root_alone():
    assert id_map_of_user(1000) == "0 1000 1\n"
