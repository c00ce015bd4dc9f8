"""Speaking: lanes, threads and the nets behind one thread."""
