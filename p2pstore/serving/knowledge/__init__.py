"""Which blocks engines and the pool hold, as they say themselves: events for the policy in place of assumptions."""
