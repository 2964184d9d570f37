"""A student as it is used: loaded from its file, fed with images as they come, its answers named."""
