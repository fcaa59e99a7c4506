"""What this node tells of objects, and of itself."""
