"""One model of a chart, drawn in the terminal or into a file."""
