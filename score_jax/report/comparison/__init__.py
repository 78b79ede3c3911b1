"""Many runs: tables and figures over seeds and recipes, with intervals and claims."""
