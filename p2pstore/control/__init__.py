"""The control plane: HTTP and JSON between agents (over TCP) and for the command line (over a Unix socket)."""
