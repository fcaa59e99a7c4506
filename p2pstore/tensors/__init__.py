"""Tensors of an object: what safetensors files hold, which of it is wanted, and where that is to lie. Pure."""
