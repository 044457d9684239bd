"""The Debian package on a running machine: installed, enabled, upgraded, removed, installed again, purged."""

import pytest

from flanneld_py import __version__
from tests.deploy.guest_node import answers, etcd, far, guest, node, pod
from tests.deploy.test_debian_package import package, run

pytestmark = [pytest.mark.full, pytest.mark.kernel, pytest.mark.timeout(600)]

__all__ = ["etcd", "far", "guest", "node", "package", "pod"]

NEXT = f"{__version__}+next"
CONFIGURATION = "/etc/flanneld-py/flanneld.env"


@pytest.fixture
def upgrade(package, tmp_path, guest):
    """The path in the guest of the same package as its next version."""
    run("dpkg-deb", "--raw-extract", package, tmp_path / "tree")
    control = tmp_path / "tree/DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {__version__}\n", f"Version: {NEXT}\n"))
    run("dpkg-deb", "--root-owner-group", "--build", tmp_path / "tree", guest.folder / "next.deb")
    return "/guest/next.deb"


@pytest.fixture
def installed(node, package):
    """The node with the package, whatever the last test did to it."""
    yield node
    node.install(package)
    node.sh("systemctl start flanneld")


def test_it_is_neither_enabled_nor_started_before_it_is_configured(guest):
    assert guest.run("systemctl", "is-enabled", "flanneld")[1] == "disabled\n"
    assert guest.show("flanneld", "ActiveState") == "inactive"


def test_its_pages_and_completion_are_found(installed):
    assert "flanneld(8)" in installed.sh("MANPAGER=cat man 8 flanneld").replace("FLANNELD", "flanneld")
    script = ". /usr/share/bash-completion/completions/flannelctl; complete -p flannelctl"
    assert "flannelctl" in installed.sh(f"bash -c '{script}'")


def test_an_upgrade_restarts_the_daemon_and_loses_no_packet(installed, pod, far, upgrade):
    installed.sh(f"systemctl enable flanneld; echo FLANNELD_V=1 >> {CONFIGURATION}")
    pid = installed.show("flanneld", "MainPID")
    with installed.answered("pod", far):
        installed.sh(f"dpkg --no-triggers --install {upgrade}")
        installed.wait_for("systemctl is-active flanneld")
    assert installed.show("flanneld", "MainPID") != pid
    assert installed.sh("dpkg-query --show --showformat='${Version}' flanneld-py") == NEXT
    assert "FLANNELD_V=1" in installed.sh(f"cat {CONFIGURATION}")
    assert installed.run("systemctl", "is-enabled", "flanneld")[1] == "enabled\n"


def test_removal_stops_the_daemon_and_keeps_configuration_and_pods(pod, far, installed):
    """Afterwards it is installed again before the pod goes: the plugin runs from the package."""
    installed.sh("systemctl enable flanneld; dpkg --no-triggers --remove flanneld-py")
    assert installed.show("flanneld", "LoadState") == "not-found"
    assert installed.show("flanneld", "ActiveState") == "inactive"
    installed.sh(f"test ! -e /usr/bin/flanneld; test -e {CONFIGURATION}; test -e /run/flannel/subnet.env")
    installed.sh("test -z \"$(find /etc/systemd -name '*flanneld*')\"")
    installed.sh(f"ip netns exec pod {answers(far)}")
    installed.sh("dpkg --no-triggers --purge flanneld-py; test ! -e /etc/flanneld-py")
    # The pod is still there, and what it is taken away by.
    installed.sh(f"test -e /run/flannel/subnet.env; test -e /var/lib/cni/flannel/pod; ip netns exec pod {answers(far)}")


def test_after_a_cleanup_nothing_is_left_by_purge(node):
    node.sh("systemctl stop flanneld; flannelctl cleanup; dpkg --no-triggers --purge flanneld-py")
    for folder in ("/etc/flanneld-py", "/run/flannel", "/usr/lib/flanneld-py", "/var/lib/cni/flannel"):
        node.sh(f"test ! -e {folder}")
    assert node.run("dpkg-query", "--status", "flanneld-py")[0]
    assert "flannel" not in node.sh("ip link").casefold()
    assert "flannel" not in node.sh("iptables -S; iptables -t nat -S").casefold()
