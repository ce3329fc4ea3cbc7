"""The answer: wire messages, codes, rules, the claim, HTTP and WebSocket."""
