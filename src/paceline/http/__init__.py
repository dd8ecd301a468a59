"""The gateway's face: routes, the dialects of APIs, its own documents and dashboard; starts, serves and stops."""
