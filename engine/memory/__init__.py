"""What may be read and written by others: buffers, under addresses of their own."""
