"""The ``mlxsched`` command, one file a subcommand; they are imported when they are called."""
