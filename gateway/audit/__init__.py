"""The audit of images: inventories of what is in them, the site's scanner, and scanning again when its feed changes."""
