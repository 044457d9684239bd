import base64
import json

import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.store.kube_access import Pem, parse_server, read_access
from flanneld_py.store.kube_options import KubeOptions

SECRET = "correct-horse-battery-staple"  # noqa: S105 - a test's


def access(**options):
    return read_access(KubeOptions(node_name="node1", **options))


def kubeconfig(folder, cluster=None, user=None, **changes):
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": user or {}}],
    } | changes
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config))
    return str(path)


def test_service_account(tmp_path):
    found = access(service_host="fd00::1", service_port="443", service_account=tmp_path)
    assert str(found.server) == "https://[fd00::1]:443"
    assert (found.ca.file, found.token_file) == (f"{tmp_path}/ca.crt", f"{tmp_path}/token")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
        ("https://api.example", "https://api.example:443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("https://rancher.example/k8s/clusters/c-1/", "https://rancher.example:443/k8s/clusters/c-1"),
    ],
)
def test_address(text, url):
    assert str(parse_server(text, "x")) == url
    assert str(access(api_url=text).server) == url


@pytest.mark.parametrize("text", ["", "ftp://10.0.0.1", "https://", "https://10.0.0.1:x", f"https://root:{SECRET}@x"])
def test_wrong_address(text):
    with pytest.raises(StoreError, match=r"--kube-api-url: .*is no address") as caught:
        parse_server(text, "--kube-api-url")
    assert SECRET not in str(caught.value)


def test_kubeconfig_in_yaml_with_files_beside_it(tmp_path):
    (tmp_path / "config").write_text(
        """
        current-context: two
        contexts: [{name: one, context: {}}, {name: two, context: {cluster: c, user: u}}]
        clusters:
        - name: c
          cluster: {server: "https://10.0.0.1:6443", certificate-authority: pki/ca.crt, tls-server-name: kubernetes}
        users:
        - name: u
          user: {client-certificate: /etc/me.crt, client-key: me.key}
        """
    )
    found = access(kubeconfig=str(tmp_path / "config"))
    assert str(found.server) == "https://10.0.0.1:6443"
    assert (found.ca, found.server_name) == (Pem(f"{tmp_path}/pki/ca.crt"), "kubernetes")
    assert (found.certificate, found.key) == (Pem("/etc/me.crt"), Pem(f"{tmp_path}/me.key"))


def test_kubeconfig_with_all_inside(tmp_path):
    data = base64.b64encode(b"PEM").decode()
    path = kubeconfig(
        tmp_path,
        {"certificate-authority-data": data, "insecure-skip-tls-verify": True},
        {
            "client-certificate-data": data,
            "client-key-data": data,
            "token": SECRET,
            "username": "me",
            "password": SECRET,
        },
    )
    found = access(kubeconfig=path)
    assert found.ca == found.certificate == found.key == Pem(data=b"PEM")
    assert (found.token, found.username, found.password, found.insecure) == (SECRET, "me", SECRET, True)
    assert SECRET not in repr(found)


def test_the_flag_goes_before_the_kubeconfigs_server(tmp_path):
    found = access(kubeconfig=kubeconfig(tmp_path, user={"token": SECRET}), api_url="https://10.9.9.9:1")
    assert (str(found.server), found.token) == ("https://10.9.9.9:1", SECRET)


def test_exec(tmp_path):
    given = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "./login",
        "args": ["--for", "node1"],
        "env": [{"name": "REGION", "value": "eu"}],
        "provideClusterInfo": True,
        "installHint": "install it",
        "interactiveMode": "Never",
    }
    plugin = access(kubeconfig=kubeconfig(tmp_path, user={"exec": given})).exec
    assert (plugin.command, plugin.args, plugin.environ) == (
        f"{tmp_path}/login",
        ("--for", "node1"),
        (("REGION", "eu"),),
    )
    assert (plugin.provide_cluster, plugin.install_hint) == (True, "install it")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"current-context": ""}, "it names no current-context"),
        ({"current-context": "two"}, "there is no context 'two' in contexts"),
        ({"clusters": []}, "there is no cluster 'c' in clusters"),
        ({"users": None}, "there is no user 'u' in users"),
        ({"cluster": {"server": ""}}, "server: '' is no address"),
        ({"cluster": {"proxy-url": "http://p"}}, "proxy-url: a proxy is not supported"),
        ({"cluster": {"certificate-authority-data": "%"}}, "certificate-authority-data is no base64"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "auth-provider: "),
        ({"user": {"as": "root"}}, "as: impersonation is not supported"),
        ({"user": {"exec": {"command": "x"}}}, "exec: it needs apiVersion and command"),
        (
            {"user": {"exec": {"command": "x", "apiVersion": "v", "interactiveMode": "Always"}}},
            "exec: interactiveMode Always",
        ),
    ],
)
def test_what_is_wrong_with_a_kubeconfig_is_told(tmp_path, changes, told):
    path = kubeconfig(tmp_path, **changes)
    with pytest.raises(StoreError, match=f"kubeconfig {path}: ") as caught:
        access(kubeconfig=path)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["[]", f"token: {SECRET}: x", "", f"\t{SECRET}"])
def test_what_is_no_kubeconfig_is_told_without_its_text(tmp_path, text):
    (tmp_path / "config").write_text(text)
    with pytest.raises(StoreError, match=r"it is no (YAML|mapping)|names no") as caught:
        access(kubeconfig=str(tmp_path / "config"))
    assert SECRET not in str(caught.value)


def test_a_kubeconfig_that_is_not_there():
    with pytest.raises(StoreError, match="kubeconfig /nonexistent: No such file"):
        access(kubeconfig="/nonexistent")
