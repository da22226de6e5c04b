"""A model behind a web page and an HTTP endpoint."""
