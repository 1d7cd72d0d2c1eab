"""Processors of Google Cloud."""
