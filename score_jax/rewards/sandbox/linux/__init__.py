"""What confines a process on Linux: namespaces, landlock, seccomp, and their system calls."""
