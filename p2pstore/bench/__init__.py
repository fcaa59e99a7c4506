"""Measurements of the store: a broadcast by real agents on one machine, and a swarm in simulated time. No terminal."""
