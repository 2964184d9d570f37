"""A student as a file for a device, with what the file costs and what it loses, by groups of classes."""
