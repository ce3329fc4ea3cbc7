"""The truth: events, log backends, followers and projections. Knows nothing of the rest of Tillgate."""
