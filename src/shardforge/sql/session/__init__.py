"""One client's conversation: settings, transactions, prepared statements, cursors, and what is not a query."""
