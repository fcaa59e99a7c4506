"""Getting: who has it, which chunk from whom, into what, checked."""
