"""The store in a real etcd keeps the contract."""

import pytest

from tests.store.contract import FinderContract, LeaseContract, WatchContract

pytestmark = pytest.mark.etcd


class TestWatch(WatchContract):
    pass


class TestLeases(LeaseContract):
    pass


class TestFinder(FinderContract):
    pass
