"""Processes of a host that get the same object together: who brings which chunk, and how it reaches the others."""
