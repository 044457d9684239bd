"""The kernel's state: the only place that speaks netlink, sysctl, TUN, nftables and iptables."""
