"""What carries packets between nodes: one file a backend, each giving desired state."""
