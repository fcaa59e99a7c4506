"""What other programs load: each module is for one of them, and is imported by it alone."""
