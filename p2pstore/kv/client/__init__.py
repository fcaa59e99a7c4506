"""The client of the pooled store: values in and out, its own memory in the pool, and the way to the master."""
