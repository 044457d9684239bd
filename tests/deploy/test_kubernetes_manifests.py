"""The manifests of deploy/kubernetes, each taken by a real kube-apiserver in a dry run that knows every field."""

import json
import shutil
import subprocess

import pytest
import yaml

from flanneld_py.cli.flags import parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS, make_options
from flanneld_py.core.network_config import parse_network_config
from netns_lab.errors import LabError
from netns_lab.kube_apiserver import find_kubernetes
from tests.kube_server import MANIFESTS, KubeServer, collection_of

OVERLAYS = sorted(path.parent.name for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
STRICT = "fieldValidation=Strict"
DRY_RUN = f"dryRun=All&{STRICT}"


def read_base():
    listing = yaml.safe_load((MANIFESTS / "base" / "kustomization.yaml").read_text())
    texts = [(MANIFESTS / "base" / name).read_text() for name in listing["resources"]]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def build(overlay):
    try:
        kubectl = find_kubernetes("kubectl")
    except LabError as error:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            pytest.skip(f"no kubectl, which builds kustomize overlays: {error}")
    command = [kubectl, "kustomize", MANIFESTS / "overlays" / overlay]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def find(documents, kind):
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod_of(documents):
    return find(documents, "DaemonSet")["spec"]["template"]["spec"]


def test_the_file_for_kubectl_apply_is_the_base():
    documents = list(yaml.safe_load_all((MANIFESTS / "flannel.yaml").read_text()))
    assert documents == read_base()


def test_flanneld_takes_the_flags_and_the_configuration():
    (container,) = pod_of(read_base())["containers"]
    environ = {"NODE_NAME": "n", "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    options = make_options(parse_flags(FLAGS, container["args"], {}), environ)
    assert options.healthz_port == container["readinessProbe"]["httpGet"]["port"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(options.store.net_config.parent) in mounts
    assert str(options.subnet_file.parent) in mounts
    assert [variable["name"] for variable in container["env"]] == ["NODE_NAME"]


def test_nothing_is_privileged():
    pod = pod_of(read_base())
    for container in (*pod["initContainers"], *pod["containers"]):
        context = container["securityContext"]
        assert not context.get("privileged")
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"]["drop"] == ["ALL"]


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_every_configuration_can_be_used(overlay):
    data = find(read_base() if overlay is None else build(overlay), "ConfigMap")["data"]
    config = parse_network_config(data["net-conf.json"], limits=False)
    assert config.backend_given
    assert (config.ipv6 is not None) == (overlay == "dual-stack")


@pytest.mark.parametrize(("overlay", "flag", "value"), [("guard", "guard", "drop"), ("on-demand", "on-demand", True)])
def test_what_is_a_flag(overlay, flag, value):
    (container,) = pod_of(build(overlay))["containers"]
    values = parse_flags(FLAGS, container["args"], {})
    assert values[flag] == value
    assert values["kube-subnet-mgr"]


@pytest.fixture(scope="module")
def server(loopback, tmp_path_factory):
    made = KubeServer(tmp_path_factory.mktemp("kube"))
    try:
        made.start()
        yield made
    finally:
        made.close()


def apply(server, document, query=DRY_RUN):
    path = f"{collection_of(document)}/{document['metadata']['name']}?fieldManager=test&{query}"
    return server.ask("PATCH", path, document, "application/apply-patch+yaml")


@pytest.mark.kubernetes
@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_the_api_server_takes_every_object(server, overlay):
    documents = read_base() if overlay is None else build(overlay)
    assert len(documents) == 6
    for document in documents:
        # What lies in a namespace is refused before there is one.
        status, answer = apply(server, document, STRICT if document["kind"] == "Namespace" else DRY_RUN)
        assert status in {200, 201}, (document["kind"], json.dumps(answer))


@pytest.mark.kubernetes
def test_the_api_server_takes_the_clean_up(server):
    status, answer = apply(server, yaml.safe_load((MANIFESTS / "cleanup.yaml").read_text()))
    assert status == 201, answer


@pytest.mark.kubernetes
def test_a_field_that_there_is_not_would_be_found(server):
    document = find(read_base(), "DaemonSet")
    document["spec"]["template"]["spec"]["priorityClass"] = "system-node-critical"
    status, answer = apply(server, document)
    assert status in {400, 500}
    assert "priorityClass" in answer["message"]


@pytest.mark.kubernetes
def test_a_pod_of_it_is_admitted(server):
    for document in read_base():
        assert apply(server, document, "force=true")[0] in {200, 201}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod_of(read_base())}
    status, answer = server.ask("POST", f"/api/v1/namespaces/kube-flannel/pods?{DRY_RUN}", pod)
    assert status == 201, answer
    assert answer["spec"]["priority"] == 2000001000
