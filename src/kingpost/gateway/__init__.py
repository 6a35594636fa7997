"""The data plane: one process that proxies, admits and meters. It knows the world by messages only."""
