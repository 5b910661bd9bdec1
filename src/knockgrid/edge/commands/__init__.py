"""The commands, a file for each kind; heavy imports happen inside them only."""
