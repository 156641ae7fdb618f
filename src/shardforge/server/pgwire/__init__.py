"""PostgreSQL's frontend/backend protocol 3.0 (chapter 55): bytes in `frontend` and `backend`, talk in `connection`."""
