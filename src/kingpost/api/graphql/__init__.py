"""GraphQL for the truss CLI: the operations that it sends, resolved by the same control plane."""

from kingpost.api.graphql.endpoint import PATH, routes

__all__ = ["PATH", "routes"]
