"""The interface of the Hugging Face hub, for programs on this machine that read it: objects are repositories there."""
