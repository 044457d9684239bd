"""What mk-docker-opts of Go flannel 0.26.7 wrote for the same subnet.env, flags and environment."""

import pytest

from flanneld_py.ctl.main import main

SUBNET_ENV = "FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.0.67.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
BIP, MASQUERADE, MTU = (
    'DOCKER_OPT_BIP="--bip=10.0.67.1/24"\n',
    'DOCKER_OPT_IPMASQ="--ip-masq=false"\n',
    'DOCKER_OPT_MTU="--mtu=1450"\n',
)
ALL = '=" --bip=10.0.67.1/24 --ip-masq=false --mtu=1450"\n'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the command and returns its status and what it wrote, None for nothing."""
    for name in ("DOCKER_OPTS", "DOCKER_OPT_LOG"):
        monkeypatch.delenv(name, raising=False)

    def call(*words, text=SUBNET_ENV):
        source, target = tmp_path / "subnet.env", tmp_path / "docker_opts.env"
        source.write_text(text)
        status = main(["docker-opts", "-f", str(source), "-d", str(target), *words])
        return status, target.read_text() if target.exists() else None

    return call


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ((), f"{BIP}{MASQUERADE}{MTU}DOCKER_OPTS{ALL}"),
        (("-i",), f"{BIP}{MASQUERADE}{MTU}"),
        (("-c",), f"DOCKER_OPTS{ALL}"),
        (("-i", "-c"), f"{BIP}{MASQUERADE}{MTU}DOCKER_OPTS{ALL}"),
        (("-c", "-k", "DOCKER_NETWORK_OPTIONS"), f"DOCKER_NETWORK_OPTIONS{ALL}"),
        (("-m",), f'{BIP}{MTU}DOCKER_OPTS=" --bip=10.0.67.1/24 --mtu=1450"\n'),
    ],
)
def test_flags(run, words, written):
    assert run(*words) == (0, written)


def test_docker_masquerades_where_flanneld_does_not(run):
    text = SUBNET_ENV.replace("true", "false")
    assert run("-c", text=text) == (0, 'DOCKER_OPTS=" --bip=10.0.67.1/24 --ip-masq=true --mtu=1450"\n')


def test_what_the_environment_has_is_taken_over(run, monkeypatch):
    monkeypatch.setenv("DOCKER_OPTS", "--debug")
    monkeypatch.setenv("DOCKER_OPT_LOG", "--log-level=info")
    written = run()[1]
    assert written == (
        f'{BIP}{MASQUERADE}DOCKER_OPT_LOG="--log-level=info"\n{MTU}'
        'DOCKER_OPTS="--debug  --bip=10.0.67.1/24 --ip-masq=false --log-level=info --mtu=1450"\n'
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SUBNET_ENV.replace("true", "maybe"), "FLANNEL_IPMASQ is 'maybe'"),
        (SUBNET_ENV.replace("1450", "many"), "FLANNEL_MTU is no number"),
        ("", "FLANNEL_NETWORK or FLANNEL_IPV6_NETWORK is missing"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_written(run, capsys, text, told):
    assert run(text=text) == (1, None)
    assert told in capsys.readouterr().err


def test_without_a_subnet_file_nothing_is_written(tmp_path, capsys):
    words = ["docker-opts", "-f", str(tmp_path / "none"), "-d", str(tmp_path / "out")]
    assert main(words) == 1
    assert "No such file or directory: flanneld writes it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_wrong_name(run, capsys):
    assert run("-k", "A B") == (1, None)
    assert "-k 'A B'" in capsys.readouterr().err


@pytest.mark.kernel
def test_a_subnet_that_is_routed_elsewhere_is_refused(host, run, capsys):
    host.ip("route add 10.0.67.0/24 via 172.30.0.1")
    with host.namespace.entered():
        status, written = run("-c")
        assert (status, written) == (1, f"DOCKER_OPTS{ALL}")
        assert "the routing table already sends 10.0.67.0/24 to a gateway" in capsys.readouterr().err
        # A bridge that has it already is what Docker is about to find.
        host.ip("route replace 10.0.67.0/24 dev eth0")
        assert run("-c")[0] == 0
