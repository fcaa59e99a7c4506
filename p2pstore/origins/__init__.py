"""Files from outside the cluster, read once by all nodes that want them: by sections, each passed on at once."""
