"""The command line: options in, rendering out."""
