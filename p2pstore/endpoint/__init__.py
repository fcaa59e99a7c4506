"""The Hugging Face hub's interface on this node: programs read objects there, and what is brought from the hub."""
