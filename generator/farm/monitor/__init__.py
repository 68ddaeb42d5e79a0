"""Looking at work in progress: what is read becomes a board, and a board is drawn as text, as a live view or as a page."""
