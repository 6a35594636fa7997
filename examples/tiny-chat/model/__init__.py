"""Marks the model code as a package; it holds nothing itself."""
