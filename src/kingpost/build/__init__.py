"""From an uploaded Truss archive to something runnable: environment and bundle, by content."""
