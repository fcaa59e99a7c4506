"""The command line: options in, rendering out. It talks to the agent over its Unix socket."""
