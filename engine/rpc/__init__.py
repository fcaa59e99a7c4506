"""The master's wire of the pooled store: coro_rpc's frames, struct_pack's types; no sockets, no threads."""
