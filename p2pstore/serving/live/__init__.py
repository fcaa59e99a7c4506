"""A trace of requests on real engines, over the OpenAI interface."""
