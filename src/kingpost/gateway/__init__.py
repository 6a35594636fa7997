"""The data plane: one process, an HTTP/1.1 and WebSocket reverse proxy that knows the world only
through a snapshot and its deltas. No web framework, no database, no HTTP client library in it.
"""
