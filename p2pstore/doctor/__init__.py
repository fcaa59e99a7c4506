"""What may be wrong with this node, looked at from all sides: for ``mooncake doctor``."""
