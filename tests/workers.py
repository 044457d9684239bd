"""How workers share the tests of `make test` and the like: a plugin of pytest-xdist, whose controller hands them out.

Whichever worker is free takes the next test. What a file sets up for all of its tests is made once where that is dear.
"""

from xdist.scheduler import LoadScopeScheduling

# Each boots machines, and one of these keeps a CPU busy by itself: all are for one worker, which begins with them.
_GUEST_MACHINES = {
    f"tests/deploy/{name}.py" for name in ("test_debian_lifecycle", "test_network_managers", "test_systemd_guest")
}
_SET_UP_ONCE = ("tests/deploy/", "tests/kubernetes/")


class Sharing(LoadScopeScheduling):
    def _split_scope(self, nodeid):
        """Return the name of what the test is handed out with, which may be itself alone."""
        file = nodeid.partition("::")[0]
        if file in _GUEST_MACHINES:
            return "guest machines"
        return file if file.startswith(_SET_UP_ONCE) else nodeid


def pytest_xdist_make_scheduler(config, log):
    return Sharing(config, log)


def pytest_collection_modifyitems(items):
    """Begin with the files whose tests may take long, so that no worker comes to one when the others are done."""
    bounds = {}
    for item in items:
        file, timeout = item.nodeid.partition("::")[0], item.get_closest_marker("timeout")
        bounds[file] = max(bounds.get(file, 0), timeout.args[0] if timeout else 0)
    order = {file: (file not in _GUEST_MACHINES, -bound) for file, bound in bounds.items()}
    items.sort(key=lambda item: order[item.nodeid.partition("::")[0]])
