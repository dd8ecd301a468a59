"""What happened, kept: every request with its signals, decision and outcome; and what that proves."""
