"""Migrations of the control plane's database."""
