"""What nodes tell one another: records, leases, calls to peers."""
