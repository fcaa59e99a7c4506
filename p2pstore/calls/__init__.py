"""What the Python API takes, read before anything begins."""
