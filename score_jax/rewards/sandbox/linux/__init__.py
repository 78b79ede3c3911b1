"""What only Linux has: namespaces, landlock and seccomp confine a process, by syscalls.

visible_files lists what a confined program may read; proc reads what /proc says of processes.
"""
