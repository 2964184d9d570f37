"""`distail search`: which repair, how strong and with which recipe, on the user's own data."""
