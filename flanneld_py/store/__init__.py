"""The stores that hold configuration and leases: the only place that speaks etcd or the Kubernetes API."""
