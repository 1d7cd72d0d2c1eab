"""Reading REST APIs from their description: requests, pages, rows and errors."""
