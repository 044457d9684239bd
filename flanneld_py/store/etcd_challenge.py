"""Asking whether the holder of a lease lives: two nodes that claim one PublicIP must not share a subnet.

The key is marked by white space behind its value, which no reader of JSON minds. A holder that runs watches its key and
writes it anew, without the mark. Whoever does not is gone: this node before it was started anew, for one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flanneld_py.core.errors import StoreError
from flanneld_py.store import subnet_manager

if TYPE_CHECKING:
    import random

    from flanneld_py.store.etcd_keyspace import EtcdKeyspace
    from flanneld_py.store.etcd_records import OwnRecord

_MARK_BITS = 16
_READS = 8
"""How often the key is looked at while its holder has time to answer."""
_LONGEST_DATA = 100


async def ask_holder(keys: EtcdKeyspace, record: OwnRecord, rng: random.Random) -> OwnRecord | None:
    """Return the lease as it is when nobody has answered for it; None where it has gone or changed meanwhile.

    Raises StoreError saying who holds it where somebody has answered, and where the store does not.
    """
    # Two that ask at once must not take each other's mark for their own.
    value = record.value.rstrip() + bytes(rng.choice(b" \t") for _ in range(_MARK_BITS))
    revision = await keys.update(record.name, record.revision, value, record.etcd_lease)
    if revision is None:
        return None
    for _ in range(_READS):
        await asyncio.sleep(subnet_manager.CHALLENGE_PATIENCE / _READS)
        found = await keys.read(record.name)
        if found is None:
            return None
        if found.mod_revision != revision:
            raise StoreError(
                f"another node that runs has our public address and holds lease {record.name}, "
                f"{record.value.decode(errors='replace').strip()[:_LONGEST_DATA]}: "
                "give one of the two another address by --iface or --public-ip"
            )
    return record._replace(value=value, revision=revision)
