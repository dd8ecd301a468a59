"""What the records prove: estimates of what other policies would have taken, reports, replay, cost."""
