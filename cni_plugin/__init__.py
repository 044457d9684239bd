"""The CNI plugin: its own process, which starts in milliseconds."""
