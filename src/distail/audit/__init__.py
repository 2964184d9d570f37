"""What `distail audit` is given, and how its findings are shown; the numbers come from `distail.audit.audit`."""
