"""The command line `lvm`: options, rendering, one file a command."""
