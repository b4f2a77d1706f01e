"""Data only: jinja2 templates, `node/` for files of a job's root and `site/` for the site's own files."""
