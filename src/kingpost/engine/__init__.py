"""Where replicas run: one interface, several engines, one conformance suite."""
