"""The command line: options in, rendering out. It talks to the agent over its Unix socket."""

EXIT_INTERRUPTED = 130
"""128 and the number of SIGINT, as a shell has it."""
