"""The lab's instrument: times a named case for a daemon given as a command, alone or beside another one.

It knows daemons by their flags, by what they write into etcd and subnet.env, and by what the kernel then holds, and
imports nothing of them. `command.py` tells in which order a run comes to be; a case is one file in `cases/`.
"""
