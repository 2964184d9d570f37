"""Many runs side by side: what is compared, where it runs, what the figures say together."""
