"""One process a home: the agent, its socket, its client, and the etcd that it starts."""
