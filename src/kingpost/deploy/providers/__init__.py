"""One module per provider; `kingpost.deploy.registry` knows them by name."""
