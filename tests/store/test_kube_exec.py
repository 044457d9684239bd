"""Credential plugins that are real programs."""

import json
import sys

import pytest

from flanneld_py.core.errors import StoreError
from flanneld_py.store.kube_access import ExecCommand, KubeAccess, ServerUrl
from flanneld_py.store.kube_exec import ExecCredentials

V1 = "client.authentication.k8s.io/v1"
ACCESS = KubeAccess("test", ServerUrl("10.0.0.1", 6443, secure=True))
SECRET = "correct-horse-battery-staple"  # noqa: S105 - a test's


class Plugin:
    """A plugin that prints what it is told to, and notes each call and what it was told."""

    def __init__(self, folder):
        self.folder = folder
        self.folder.joinpath("plugin.py").write_text(
            "import os, sys\n"
            f"open({str(folder / 'calls')!r}, 'a').write(os.environ['KUBERNETES_EXEC_INFO'] + '\\n')\n"
            f"sys.stdout.write(open({str(folder / 'answer')!r}).read())\n"
            "sys.stderr.write(os.environ.get('COMPLAINT', ''))\n"
            "sys.exit(int(os.environ.get('STATUS', 0)))\n"
        )

    def command(self, **changes):
        environ = changes.pop("environ", {})
        return ExecCommand(
            V1, sys.executable, ("-I", str(self.folder / "plugin.py")), tuple(environ.items()), **changes
        )

    def answers(self, text=None, **status):
        credential = {"apiVersion": V1, "kind": "ExecCredential", "status": status}
        (self.folder / "answer").write_text(json.dumps(credential) if text is None else text)

    @property
    def calls(self):
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def plugin(tmp_path):
    return Plugin(tmp_path)


async def test_a_token_is_kept_until_it_is_no_longer_taken(plugin):
    plugin.answers(token=SECRET)
    credentials = ExecCredentials()
    for _ in range(3):
        assert (await credentials.get(plugin.command(), ACCESS)).token == SECRET
    assert plugin.calls == [{"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}]
    credentials.forget()
    plugin.answers(token="new")  # noqa: S106 - a test's
    assert (await credentials.get(plugin.command(), ACCESS)).token == "new"  # noqa: S105 - as above


@pytest.mark.parametrize(("expires", "calls"), [("2999-01-01T00:00:00Z", 1), ("2001-01-01T00:00:00Z", 2)])
async def test_what_has_expired_is_asked_for_again(plugin, expires, calls):
    plugin.answers(clientCertificateData="CERT", clientKeyData="KEY", expirationTimestamp=expires)
    credentials = ExecCredentials()
    for _ in range(2):
        assert (await credentials.get(plugin.command(), ACCESS))[:3] == ("", b"CERT", b"KEY")
    assert len(plugin.calls) == calls


async def test_a_plugin_is_told_the_cluster_if_it_wants_to_be(plugin):
    plugin.answers(token=SECRET)
    await ExecCredentials().get(plugin.command(provide_cluster=True), ACCESS)
    assert plugin.calls[0]["spec"]["cluster"] == {"server": "https://10.0.0.1:6443"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (f"token: {SECRET}", "is no ExecCredential"),
        (json.dumps({"apiVersion": V1, "status": [SECRET]}), "is no ExecCredential"),
        (json.dumps({"apiVersion": V1, "status": {}}), "neither a token nor a certificate"),
        (json.dumps({"apiVersion": "v0", "status": {"token": SECRET}}), "another apiVersion"),
        (json.dumps({"apiVersion": V1, "status": {"token": SECRET, "expirationTimestamp": "soon"}}), "is no Exec"),
    ],
)
async def test_a_wrong_answer_is_told_but_never_shown(plugin, answer, told):
    plugin.answers(answer)
    with pytest.raises(StoreError, match=told) as caught:
        await ExecCredentials().get(plugin.command(), ACCESS)
    assert SECRET not in str(caught.value)


async def test_a_plugin_that_fails(plugin):
    plugin.answers(token=SECRET)
    environ = {"STATUS": "3", "COMPLAINT": "no network"}
    with pytest.raises(StoreError, match="exit status 3: no network"):
        await ExecCredentials().get(plugin.command(environ=environ), ACCESS)
    with pytest.raises(StoreError, match="exec /nonexistent: No such file or directory; install it"):
        await ExecCredentials().get(ExecCommand(V1, "/nonexistent", install_hint="install it"), ACCESS)
    with pytest.raises(StoreError, match="apiVersion 'v0' is none of"):
        await ExecCredentials().get(ExecCommand("v0", "/nonexistent"), ACCESS)
