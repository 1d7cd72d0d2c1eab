"""Processors of Anthropic."""
