"""A request that any of several replicas of an engine may serve: what they tell, and which of them shall, and how. It
knows no program by name; what stands beside it speaks with one."""
