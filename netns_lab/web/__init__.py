"""A page that shows a lab as it lives, and breaks it on request."""
