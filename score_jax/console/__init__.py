"""What every command shares: its output, its exit status, and what is said when it fails.

outputs lets it end or go on without a terminal or pipe that closes, storage recognises disks that
are full or gone, and command runs the small commands with both.
"""
