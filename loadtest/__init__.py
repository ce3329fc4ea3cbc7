"""Load generators and benchmarks; they know the wire messages and nothing else of the gateway."""
