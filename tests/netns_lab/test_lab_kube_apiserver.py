import re
from pathlib import Path

import pytest

from netns_lab.errors import LabError
from netns_lab.kube_apiserver import ADMIN, FLANNEL, VERSION, ApiServer, find_kubernetes

ROOT = Path(__file__).parent.parent.parent


def test_what_is_built_is_what_is_looked_for():
    modules = (ROOT / "tools" / "kubernetes" / "go.mod").read_text()
    assert re.search(r"k8s.io/kubernetes (\S+)", modules)[1] == VERSION


def test_one_that_is_not_built_is_told(monkeypatch):
    monkeypatch.setenv("KUBE_PROGRAMS", "/nonexistent")
    with pytest.raises(LabError, match="no kube-apiserver in /nonexistent: make kubernetes builds it"):
        find_kubernetes("kube-apiserver")


def test_every_user_has_a_token_of_its_own(tmp_path):
    server = ApiServer(tmp_path, "192.0.2.1", 6443)
    server.write_secrets()
    tokens = [line.split(",")[:2] for line in (tmp_path / "tokens.csv").read_text().splitlines()]
    assert tokens == [[server.token(user), user] for user in (ADMIN, FLANNEL)]
    assert server.token(FLANNEL) in server.kubeconfig(FLANNEL)
    assert server.token(ADMIN) not in server.kubeconfig(FLANNEL)
