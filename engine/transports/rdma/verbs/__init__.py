"""The verbs behind one small interface: ctypes, pyverbs, and a fake."""
