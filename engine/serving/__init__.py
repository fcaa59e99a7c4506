"""Answering peers: segments, handshakes, requests over TCP, descriptors."""
