"""From layers to one image file: tar, tree, flattening, checks, and the formats of image files."""
