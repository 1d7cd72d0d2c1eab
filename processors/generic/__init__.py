"""What works for any provider."""
