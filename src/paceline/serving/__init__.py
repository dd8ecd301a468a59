"""The way of a request: the fleet of engines, turns, attempts, relaying. Knows nothing of routes and dialects."""
