import asyncio
import json
import random
from ipaddress import ip_address

import pytest

from flanneld_py.agent.startup import obtain_lease, wait_for_config, wait_for_uplink
from flanneld_py.agent.subnet_file import write_subnet_file
from flanneld_py.backends.registry import parse_backend
from flanneld_py.cli import flanneld_flags
from flanneld_py.cli.flags import parse_flags
from flanneld_py.cli.flanneld_flags import FLAGS
from flanneld_py.core.lease import encode_attrs
from flanneld_py.core.network_config import parse_network_config
from flanneld_py.core.prefix import parse_prefix
from flanneld_py.core.subnet_env import SubnetEnv
from tests.fakes.memory_store import MemoryStore
from tests.waiting import until

GOOD = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}'


@pytest.fixture
def rng():
    return random.Random(0)  # noqa: S311 - repeatable


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
async def begin(store, rng):
    """A function that begins to wait for the configuration."""
    tasks = []

    def begin():
        tasks.append(asyncio.create_task(wait_for_config(store.manager(rng))))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_configuration_that_is_there(store, begin, caplog):
    store.config = GOOD
    config, make_backend = await begin()
    assert config.backend_type == "vxlan"
    assert callable(make_backend)
    assert not caplog.records


async def test_configuration_that_comes_later(store, begin, caplog):
    waiting = begin()
    await until(lambda: "waiting: for=configuration reason=there is none yet in the store" in caplog.text)
    assert not waiting.done()
    store.config = GOOD
    await waiting


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{no JSON", "config: it is no JSON"),
        ('{"Backend":{"Type":"vxlan"}}', 'Network: it is missing; expected a prefix like "10.5.0.0/16"'),
        ('{"Network":"10.5.0.0/16","SubnetLen":31,"Backend":{"Type":"vxlan"}}', "SubnetLen: 31 does not fit"),
        ('{"Network":"10.5.0.0/16","Backend":{"Type":"pigeon"}}', "Backend.Type: 'pigeon' is not known here"),
        ('{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":-1}}', "VNI: -1 is out of bounds"),
    ],
)
async def test_bad_configuration_is_told_in_one_line_and_a_better_one_waited_for(store, begin, caplog, text, told):
    store.config = text
    waiting = begin()
    await until(lambda: told in caplog.text)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.message.startswith("waiting: for=a better configuration reason=")
    assert "\n" not in record.message
    assert not waiting.done()
    store.config = GOOD
    config, _ = await waiting
    assert str(config.ipv4.network) == "10.5.0.0/16"


async def test_store_that_is_away_at_first(store, begin):
    store.away = "etcd is gone"
    store.config = GOOD
    waiting = begin()
    await asyncio.sleep(0)
    store.away = None
    await waiting


def make_options(tmp_path, *words):
    return flanneld_flags.make_options(parse_flags(FLAGS, [f"--subnet-file={tmp_path / 'subnet.env'}", *words], {}), {})


def test_control_socket_lies_beside_the_subnet_file(tmp_path):
    assert make_options(tmp_path).socket_path == tmp_path / "subnet.sock"


@pytest.mark.kernel
async def test_uplink_that_comes_later(host, tmp_path, rng, caplog):
    caplog.set_level("INFO")
    config = parse_network_config(GOOD)
    task = asyncio.create_task(wait_for_uplink(make_options(tmp_path, "--iface=late0"), config, host.sock, rng))
    await until(lambda: "waiting: for=uplink reason=no interface matches late0; there are: " in caplog.text)

    def make(ipr):
        ipr.link("add", ifname="late0", kind="veth", peer="late1")
        ipr.addr("add", index=ipr.link_lookup(ifname="late0")[0], address="192.168.7.2", prefixlen=24)

    host.do(make)
    await until(lambda: "interface late0 (--iface=late0) is down" in caplog.text)
    host.do(lambda ipr: ipr.link("set", index=ipr.link_lookup(ifname="late0")[0], state="up"))
    uplink = await task
    assert (uplink.interface.name, uplink.source) == ("late0", ip_address("192.168.7.2"))
    assert "uplink chosen: name=late0 because=--iface=late0 public_ip=192.168.7.2" in caplog.text


@pytest.mark.kernel
async def test_uplink_by_the_default_route_that_comes_later(host, tmp_path, rng, caplog):
    task = asyncio.create_task(wait_for_uplink(make_options(tmp_path), parse_network_config(GOOD), host.sock, rng))
    await until(lambda: "there is no default route; name the interface with --iface" in caplog.text)
    host.do(lambda ipr: ipr.route("add", dst="default", gateway="172.30.0.1"))
    assert (await task).interface.name == "eth0"


@pytest.mark.kernel
class TestLease:
    @pytest.fixture
    async def obtain(self, host, store, tmp_path, rng):
        config = parse_network_config(GOOD)
        host.do(lambda ipr: ipr.route("add", dst="default", gateway="172.30.0.1"))
        uplink = await wait_for_uplink(make_options(tmp_path), config, host.sock, rng)

        async def call():
            backend = parse_backend(config)(uplink)
            return await obtain_lease(
                store.manager(rng), config, backend, host.sock, subnet_file=tmp_path / "subnet.env", rng=rng
            )

        return call

    @staticmethod
    def vtep_mac(held):
        return json.loads(held.lease.attrs.backend_data)["VtepMAC"]

    async def test_first_lease(self, obtain, store):
        request, held = await obtain()
        assert store.records[held.key].value == encode_attrs(request.attrs)
        assert held.lease.attrs.public_ip == int(ip_address("172.30.0.11"))

    async def test_restart_keeps_subnet_and_mac(self, obtain):
        _, first = await obtain()
        _, second = await obtain()
        assert (second.key, self.vtep_mac(second)) == (first.key, self.vtep_mac(first))

    async def test_lost_lease_keeps_the_devices_mac_and_the_files_subnet(self, obtain, host, tmp_path):
        host.make_vxlan(mac="02:00:00:00:00:77")
        subnet = parse_prefix("10.5.44.0/24")
        write_subnet_file(tmp_path / "subnet.env", SubnetEnv((parse_prefix("10.5.0.0/16"),), (subnet,), 1450, False))
        _, held = await obtain()
        assert (held.key, self.vtep_mac(held)) == ("10.5.44.0-24", "02:00:00:00:00:77")

    async def test_earlier_lease_goes_before_the_device_and_the_file(self, obtain, host, store, tmp_path):
        host.make_vxlan(mac="02:00:00:00:00:77")
        subnet = parse_prefix("10.5.44.0/24")
        write_subnet_file(tmp_path / "subnet.env", SubnetEnv((parse_prefix("10.5.0.0/16"),), (subnet,), 1450, False))
        go_value = (
            '{"PublicIP":"172.30.0.11","PublicIPv6":null,"BackendType":"vxlan",'
            '"BackendData":{"VNI":1,"VtepMAC":"7a:e3:ab:24:37:fb"}}'
        )
        store.put("10.5.8.0-24", go_value)
        _, held = await obtain()
        assert (held.key, self.vtep_mac(held)) == ("10.5.8.0-24", "7a:e3:ab:24:37:fb")
        assert store.records["10.5.8.0-24"].value == go_value
        assert set(store.writes) == {"10.5.8.0-24"}

    async def test_a_subnet_that_is_in_use_here_is_ours_without_a_question(self, obtain, host, store):
        index = host.make_vxlan(mac="02:00:00:00:00:77")
        host.do(lambda ipr: ipr.addr("add", index=index, address="10.5.8.0", prefixlen=32))
        store.put("10.5.8.0-24", '{"PublicIP":"172.30.0.11","BackendType":"vxlan"}')
        _, held = await obtain()
        assert held.key == "10.5.8.0-24"
        assert len(store.writes) == 2

    async def test_store_that_is_away_is_waited_for(self, obtain, store, caplog):
        store.away = "etcd is gone"
        task = asyncio.create_task(obtain())
        await until(lambda: "waiting: for=store reason=etcd is gone" in caplog.text)
        store.away = None
        await task

    async def test_exhausted_network_is_waited_for(self, obtain, store, caplog):
        for index in range(256):
            store.put(f"10.5.{index}.0-24", '{"PublicIP":"172.31.0.1","BackendType":"vxlan"}')
        task = asyncio.create_task(obtain())
        await until(lambda: "waiting: for=a lease reason=no subnet is free" in caplog.text)
        store.delete("10.5.77.0-24")
        _, held = await task
        assert held.key == "10.5.77.0-24"
