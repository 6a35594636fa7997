"""The deployer: GPUs and prices, providers, and a record of what was made where."""
