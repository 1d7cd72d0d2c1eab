"""What a token costs: dated rate cards, the book that looks them up, and exact amounts."""
