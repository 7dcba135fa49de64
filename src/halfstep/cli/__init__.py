"""The command line: one program, one verb per stage; each reads files and writes files."""
