"""Where a request goes: the router, which decides and learns, the operator's rules, and what is kept over restarts."""
