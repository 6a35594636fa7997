"""The management REST API: one module per subject, gathered by `routes`."""
