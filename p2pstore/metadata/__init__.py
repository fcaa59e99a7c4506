"""Where nodes meet: a small key-value store with leases and watches, etcd in production, memory in tests."""
