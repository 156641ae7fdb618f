"""A Django application: authors, their books, and what the books are about."""
