"""The programs: each reads files and writes files; `run` is all of them in order."""
