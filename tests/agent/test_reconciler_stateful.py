"""Random leases, random vandalism and random refusals of the kernel: in the end the kernel is as the leases say."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from flanneld_py.core.lease_event import LeaseRejected
from tests.agent.reconciled_node import ReconciledNode, make_lease
from tests.agent.vandals import EXAMPLES, GENERATIONS, HAS_NEXTHOPS, INDEXES, STEPS, Foreign, Vandals, run_vandals

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]


class AllPeers(Vandals):
    async def begin(self):
        self.node = ReconciledNode(self.host, has_nexthops=self.has_nexthops)
        await self.node.begin()

    @rule(index=INDEXES, generation=GENERATIONS, steps=STEPS)
    def lease_put(self, index, generation, steps):
        """A node comes, or takes another MAC or another address."""
        self.leases[index] = make_lease(
            index, mac_index=index + 16 * generation, remote=f"172.30.{1 + generation}.{index}"
        )
        self.node.put(self.leases[index])
        self.run(steps)

    @rule(index=INDEXES, steps=STEPS)
    def lease_removed(self, index, steps):
        self.leases.pop(index, None)
        self.node.remove(make_lease(index))
        self.run(steps)

    @rule(index=INDEXES)
    def lease_broken(self, index):
        self.node.reconciler.take_events([LeaseRejected(f"10.5.{index}.0-24", "no JSON")])

    @rule(kept=st.sets(INDEXES), steps=STEPS)
    def listed_anew(self, kept, steps):
        self.leases = {index: lease for index, lease in self.leases.items() if index in kept}
        self.node.tell_all(*self.leases.values())
        self.run(steps)

    @rule()
    def quiet(self):
        self.check()

    async def converge(self):
        await self.node.follows(*self.leases.values())


@EXAMPLES
@HAS_NEXTHOPS
def test_kernel_is_as_wanted_in_the_end(host, has_nexthops, examples):
    run_vandals(AllPeers, examples, host=host, foreign=Foreign(host), has_nexthops=has_nexthops)
