"""The one configuration of a run: tables of settings, named recipes, TOML files.

Most tables are the settings classes of the floors that use them (`AccountRules`, `EncoderTraining`, ...), so
every setting has one definition, one docstring and one check. Code below this floor never sees the whole tree.
"""
