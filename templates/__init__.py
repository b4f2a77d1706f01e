"""Data only: jinja2 templates, `node/` for files of a job's root, `site/` for site files that no one room brings."""
