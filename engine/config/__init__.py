"""What Mooncake's variables and mooncake.json say, in layers."""
