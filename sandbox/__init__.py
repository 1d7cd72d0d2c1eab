"""Stand-ins for the outside world that speak its real wire formats on loopback."""
