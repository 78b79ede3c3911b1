"""Settings, from a config file and the command line to frozen dataclasses.

settings holds the dataclasses, with their defaults and choices; build makes them of a ConfigDict;
checks refuses what cannot work together; command_line reads --config=FILE and --config.KEY=VALUE.
"""
