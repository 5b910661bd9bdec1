"""Where knockgrid meets files and people: run folders and the command line."""
