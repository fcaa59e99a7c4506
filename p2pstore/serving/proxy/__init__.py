"""The XpYd proxy: one OpenAI address before many prefill and decode instances. The policy decides, this carries out."""
