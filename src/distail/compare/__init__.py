"""Many runs side by side: what is compared, where it runs, what the metrics say together."""
