"""Where segments are published: upstream's metadata servers, with upstream's keys and JSON."""
