"""Migrations: their files, where each dataset stands, and applying them."""
