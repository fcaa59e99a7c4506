"""What the user says, in layers, and where each value came from."""
