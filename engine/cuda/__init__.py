"""Memory of NVIDIA's GPUs: found in what programs hand over, and copied to and from it by way of pinned memory."""
