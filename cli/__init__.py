"""The command line `lvm`: one room for each panel of its help, one file a command."""
