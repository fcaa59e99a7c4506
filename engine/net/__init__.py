"""Sockets, names of hosts, connections, rates."""
