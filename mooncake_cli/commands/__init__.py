"""One file a command (or a group of them): its options, the call, and what is shown of the answer."""
