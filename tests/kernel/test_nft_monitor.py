"""What is heard of nf_tables: all that others change, however much we change ourselves."""

import pytest

from flanneld_py.kernel import guard_members
from flanneld_py.kernel.nf_tables import NEWSETELEM, change_elements, new_table
from flanneld_py.kernel.nf_tables_socket import NfTables
from flanneld_py.kernel.nft_monitor import NftMonitor

pytestmark = pytest.mark.kernel

TABLE, OTHER_TABLE = "heard", "not heard"
ADDRESS = 10 << 24
MORE_THAN_A_SOCKET_HOLDS = range(30_000)


class Writer:
    def __init__(self):
        self.opened = NfTables()

    def make(self, table):
        made = new_table(guard_members.INET, table), guard_members.new_members(table, 4, 24)
        self.opened.execute(made, "make the table")

    def admit(self, numbers, table=TABLE):
        elements = guard_members.encode_members(4, 24, [(ADDRESS + number, ADDRESS) for number in numbers])
        name = guard_members.set_name(4, 24)
        for start in range(0, len(elements), 1000):
            part = elements[start : start + 1000]
            change = change_elements(NEWSETELEM, guard_members.INET, table, name, part)
            self.opened.execute([change], "admit members")


@pytest.fixture
def node(make_namespace):
    opened = []

    def begin():
        us, others = Writer(), Writer()
        monitor = NftMonitor(frozenset({TABLE}), us.opened.port)
        opened.extend((us.opened, others.opened, monitor))
        us.make(TABLE)
        return us, others, monitor

    yield make_namespace().run(begin)
    for one in opened:
        one.close()


def test_what_we_change_is_not_heard_and_loses_nothing(node):
    us, _, monitor = node
    us.admit(MORE_THAN_A_SOCKET_HOLDS)
    assert not monitor.read_changed()


def test_what_others_change_meanwhile_is_heard(node):
    us, others, monitor = node
    us.admit(range(10))
    others.admit(range(10, 12))
    us.admit(range(20, 30))
    assert monitor.read_changed() == {TABLE}
    assert not monitor.read_changed()


def test_what_is_lost_counts_as_changed(node):
    _, others, monitor = node
    others.make(OTHER_TABLE)
    others.admit(range(10), OTHER_TABLE)
    assert not monitor.read_changed()
    others.admit(MORE_THAN_A_SOCKET_HOLDS, OTHER_TABLE)
    assert monitor.read_changed() == {TABLE}
    assert not monitor.read_changed()


def test_what_is_changed_after_a_loss_is_heard(node):
    _, others, monitor = node
    others.make(OTHER_TABLE)
    others.admit(MORE_THAN_A_SOCKET_HOLDS, OTHER_TABLE)
    assert monitor.read_changed() == {TABLE}
    others.admit(range(10))
    assert monitor.read_changed() == {TABLE}
