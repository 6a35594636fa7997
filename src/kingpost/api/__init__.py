"""The doors to the control plane: management REST, GraphQL, uploads, pages. Parse, call, shape."""
