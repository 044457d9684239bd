"""flannelctl: asks the daemon over its socket, or reads kernel and store itself."""
