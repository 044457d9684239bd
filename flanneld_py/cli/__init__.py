"""The command line of flanneld: flags and FLANNELD_* variables to Options; the only place that exits the process."""
