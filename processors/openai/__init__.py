"""Processors of OpenAI."""
