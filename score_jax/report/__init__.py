"""What people look at: run_page/ shows one run, comparison/ sets many side by side."""
