"""Talks to a platform from outside, Kingpost or Baseten alike. Knows no terminal, no server."""
