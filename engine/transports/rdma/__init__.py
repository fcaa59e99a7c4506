"""One-sided reads and writes over RDMA: what the kernel's verbs offer, and nothing that needs a library to import."""
