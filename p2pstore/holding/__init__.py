"""What this node has, serves and has said."""
