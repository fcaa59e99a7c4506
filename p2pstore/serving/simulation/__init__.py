"""A cluster of prefill and decode instances in simulated time, and the traces that it is given."""
