"""Wiring a pod: bridge, veth pair, addresses and their allocation, CNI results; synchronous."""
