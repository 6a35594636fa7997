"""The pages for people: a start page and a live page per deployment. Plain HTML, no framework.

The server renders the frame without a key; the page asks for one and calls the management API.
"""

from kingpost.api.pages.routes import routes

__all__ = ["routes"]
