"""The asyncio shell of the daemon: one TaskGroup that joins store, reconciler, lease keeper and health."""
