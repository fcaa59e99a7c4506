"""Values on this machine's disk: a log that goes round in one file, and what lies where in it."""
