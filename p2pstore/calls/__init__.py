"""What the Python API takes, read before anything begins; its node's thread, and what comes one by one."""
