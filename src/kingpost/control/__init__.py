"""The control plane: the domain, its store, and the controllers that turn wishes into replicas."""
