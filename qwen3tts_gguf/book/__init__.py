"""Books: files of text with chapters become audiobooks. `chapters` reads them, `production` speaks them."""
