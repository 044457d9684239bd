"""`netns-lab chaos`: random faults in a lab, with traffic between all pods, and what must hold throughout."""
