"""HTTP in, HTTP out. ``application`` says who answers a path, ``pipeline`` is the way of a generation request."""
