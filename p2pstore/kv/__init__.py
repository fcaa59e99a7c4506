"""The pooled store for values by key: its master, its clients, its wire above ``engine.rpc``."""
