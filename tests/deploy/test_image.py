"""The container image, run as the manifest of the DaemonSet has it run. make test-full builds it beforehand."""

import json
import os
import shutil
import signal
import subprocess

import pytest

from flanneld_py import __version__
from tests.deploy.oci import IMAGE, Containers, Image
from tests.deploy.test_kubernetes_manifests import pod_of, read_base
from tests.test_daemon import PREFIX, cluster, empty_cluster
from tests.waiting import wait_until

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

__all__ = ["cluster", "empty_cluster"]

MOST_MEGABYTES = 60


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def pod():
    return pod_of(read_base())


@pytest.fixture
def containers(image, pod, tmp_path):
    return Containers(image, pod, tmp_path)


def test_it_is_small_and_is_what_the_manifest_names(image, pod):
    assert IMAGE.stat().st_size < MOST_MEGABYTES * 1e6
    named = {container["image"] for container in (*pod["initContainers"], *pod["containers"])}
    assert {name.rpartition("/")[2] for name in image.names} == named == {f"flanneld-py:{__version__}"}
    assert image.config["Cmd"] == ["flanneld"]


def test_there_is_no_more_in_it_than_what_runs(image):
    assert not [name for name in ("apt", "bash", "dpkg", "pip", "perl") if (image.root / "usr/bin" / name).exists()]
    told = {file.name for file in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {"flanneld-py", "libc6", "libssl3", "python3.11-minimal"} <= told


def test_all_that_python_loads_is_compiled(image):
    sources = [*(image.root / "usr/lib/python3.11/asyncio").glob("*.py")]
    sources += (image.root / "usr/lib/flanneld-py/flanneld_py").rglob("*.py")
    assert len(sources) > 100
    assert not [one for one in sources if not (one.parent / "__pycache__" / f"{one.stem}.cpython-311.pyc").exists()]


def test_every_library_that_is_loaded_is_there(image):
    programs = [
        image.root / "usr/bin/python3.11",
        image.root / "usr/sbin/xtables-nft-multi",
        image.root / "usr/bin/dash",
    ]
    programs += (image.root / "usr/lib/flanneld-py").rglob("*.so")
    if shutil.which("readelf") is None:
        pytest.skip("no readelf: apt-get install binutils")
    for program in programs:
        told = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
        needed = [line.split("[")[1].rstrip("]") for line in told.splitlines() if "(NEEDED)" in line]
        assert needed
        assert not [name for name in needed if not list((image.root / "usr/lib").glob(f"*/{name}"))], program


@pytest.mark.kernel
def test_the_init_container_installs_a_plugin_for_a_host_without_python(image, containers, pod, tmp_path):
    (container,) = pod["initContainers"]
    told = containers.run(container)
    assert "/opt/cni/bin/flannel: written" in told
    plugins = json.loads((containers.volumes / "cni-conf" / "10-flannel.conflist").read_text())["plugins"]
    assert plugins[0]["type"] == "flannel"
    # A host with nothing but a shell.
    host = tmp_path / "host"
    for name in ("usr/bin", "usr/lib", "usr/lib64", "opt/cni"):
        (host / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (host / name).symlink_to(f"usr/{name}")
    for pattern in ("usr/bin/sh", "usr/bin/dash", "usr/lib/*/libc.so.6", "usr/lib/*/ld-linux*", "usr/lib64/ld-linux*"):
        for file in image.root.glob(pattern):
            (host / file.relative_to(image.root)).parent.mkdir(exist_ok=True)
            shutil.copy2(file, host / file.relative_to(image.root), follow_symlinks=False)
    (containers.volumes / "cni-bin").rename(host / "opt/cni/bin")
    done = subprocess.run(
        ["chroot", host, "/opt/cni/bin/flannel"],
        env={"CNI_COMMAND": "VERSION", "PATH": os.environ["PATH"]},
        input='{"cniVersion": "1.0.0"}',
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1.0.0" in json.loads(done.stdout)["supportedVersions"]


@pytest.mark.kernel
@pytest.mark.etcd
def test_the_daemon_runs_with_the_capabilities_that_it_is_given(cluster, containers, pod, tmp_path):
    (container,) = pod["containers"]
    node = cluster.add_node()
    words = [word for word in container["args"] if word != "--kube-subnet-mgr"]
    command = containers.command(container, [*words, f"--etcd-endpoints={cluster.etcd.url}"])
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = node.namespace.run(lambda: subprocess.Popen(command, stdout=file, stderr=file))
    try:
        wait_until(lambda: "ready: subnet_file=" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        value = (
            '{"PublicIP":"172.30.7.7","PublicIPv6":null,"BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
        )
        cluster.ctl("put", f"{PREFIX}/subnets/10.5.250.0-24", value)
        wait_until(lambda: "10.5.250.0/24" in node.routes())
        saved = node.ip("-t nat -S", "iptables")
        assert "FLANNEL-POSTRTG" in saved
        assert "MASQUERADE" in saved
        assert "FLANNEL_IPMASQ=true" in (containers.volumes / "run" / "subnet.env").read_text()
        errors = [line for line in log.read_text().splitlines() if line.startswith("E")]
        assert not errors
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert "stopped by signal" in log.read_text()
