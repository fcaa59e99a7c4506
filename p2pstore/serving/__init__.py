"""Placing requests on prefill and decode instances: the policy, pure, and a simulator that runs this very policy."""
