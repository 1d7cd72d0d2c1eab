"""Processors of FOCUS."""
