"""What an object is: manifest, chunks, hashes, files."""
