"""The store in a real Kubernetes API keeps the contract."""

import pytest

from tests.store.contract import FinderContract, WatchContract

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def store(kube):
    return kube


class TestWatch(WatchContract):
    pass


class TestFinder(FinderContract):
    pass
