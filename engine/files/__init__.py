"""Files of users, and of the agent's home, on whatever file system they lie."""
