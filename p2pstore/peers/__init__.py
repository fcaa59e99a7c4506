"""Answering other nodes."""
